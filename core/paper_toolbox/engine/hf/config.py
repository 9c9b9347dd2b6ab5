"""A transformers configuration for a task: what serves it, its inputs by their keywords, the sizes of the data."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import ModelError
from ...task import Task, TensorSpec

IDS, MASK, TYPES, IMAGE = "input_ids", "attention_mask", "token_type_ids", "pixel_values"
#: What transformers' auto classes call a job: the table of the configurations that serve it, and examples of these.
JOBS = {
    "CausalLM": ("MODEL_FOR_CAUSAL_LM_MAPPING", "gpt2 or llama"),
    "SequenceClassification": ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", "bert or distilbert"),
    "ImageClassification": ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", "vit or convnext"),
}


def keywords(source: str, task: Task) -> dict[str, str]:
    """The task's names -> what transformers calls these inputs; no keyword twice."""
    names = {spec.name: keyword(spec) for spec in task.inputs}
    for name in names:
        if same := [other for other in names if other != name and names[other] == names[name]]:
            raise ModelError(
                f"{source} takes one input as {names[name]}, and this data has two, {name} and {same[0]}: "
                "the name of a mask has 'mask' in it, that of token types 'type'"
            )
    return names


def keyword(spec: TensorSpec) -> str:
    """What transformers calls an input."""
    if spec.dtype.startswith("float"):
        return IMAGE if len(spec.shape) == 3 else spec.name
    if "type" in spec.name:
        return TYPES
    return MASK if spec.vocabulary is None else IDS


def served(source: str, task: Task) -> str:
    """The one of ``JOBS`` that this data asks for."""
    asked = {keyword(spec) for spec in task.inputs}
    if IDS in asked:
        return "CausalLM" if task.kind == "tokens" else "SequenceClassification"
    if asked == {IMAGE} and task.kind != "tokens":
        return "ImageClassification"
    raise ModelError(f"{source} serves token ids, or one image, not a {task.kind} task of {', '.join(sorted(asked))}")


def first_id(task: Task, fresh: bool) -> int:
    """Where the data's ids begin: behind the padding id in a model that is made for sequences of this data alone."""
    ids = any(keyword(spec) == IDS for spec in task.inputs)
    return int(fresh and ids and task.kind != "tokens")


def read(library: Any, folder: Path, task: Task, fresh: bool) -> Any:
    """The folder's configuration for ``task``; a ``fresh`` model, of random weights, also takes the data's sizes."""
    more = {"attn_implementation": "eager"} if task.kind == "tokens" and MASK in map(keyword, task.inputs) else {}
    # A hidden token in front sees nobody: there fused attention answers otherwise than its exported form, this alike.
    config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **more)
    config.use_cache, config.return_dict, config.gradient_checkpointing = False, True, False
    if task.kind != "tokens":
        config.num_labels = task.outputs
    elif hasattr(config, "is_decoder"):
        config.is_decoder = True  # an encoder would see the token that it is to predict
    if fresh:
        _take_sizes(config, task)
    elif task.kind != "tokens" and hasattr(config, "vocab_size"):
        _name_padding(config)
    return config


def check_class(library: Any, source: str, config: Any, job: str) -> None:
    """Refuse a model of another job than the data's, such as a vision model for text."""
    table, examples = JOBS[job]
    if type(config) not in getattr(library, table):
        raise ModelError(
            f"{source} is a {config.model_type} model, which transformers has no form of for this data "
            f"(AutoModelFor{job}): take one like {examples}"
        )


def check_inputs(source: str, model: nn.Module, task: Task, fresh: bool) -> None:
    """Refuse inputs that the model does not take, ids that it does not know, and sequences that are too long for it."""
    if task.kind == "tokens" and any(hasattr(layer, "create_position_ids_from_input_ids") for layer in model.modules()):
        raise ModelError(
            f"{source} counts positions past its padding id, and running text has no such id: take one like "
            f"{JOBS['CausalLM'][1]}"
        )
    taken = inspect.signature(model.forward).parameters
    for spec in task.inputs:
        name = keyword(spec)
        if name not in taken:
            raise ModelError(f"{source} ({type(model).__name__}) takes no {name}, and this data has {spec.name}")
        if name == IDS:
            _check_ids(source, model, spec, task, fresh)
    types = next((spec.vocabulary for spec in task.inputs if keyword(spec) == TYPES), None) or 0
    if types > (size := getattr(model.config, "type_vocab_size", types)):
        raise ModelError(f"{source} knows {size} token types, and this data has {types}")


def _check_ids(source: str, model: Any, spec: TensorSpec, task: Task, fresh: bool) -> None:
    if len(spec.shape) != 1:
        raise ModelError(f"{source} takes token ids (T,); {spec.name} has shape {spec.shape}")
    size, asked = model.get_input_embeddings().num_embeddings, spec.vocabulary or 0
    if asked > size:
        raise ModelError(
            f"{source} knows {size} token ids, and this data has {asked}: take the data of its own tokenizer, "
            "or ?pretrained=false, which takes the data's"
        )
    most = min((_positions(layer) for path, layer in model.named_modules() if _is_position(path, layer)), default=None)
    if most is not None and spec.shape[0] > most:
        shorter = f"text:PATH?length={most}" if task.kind == "tokens" else f"sequences of {most} ids at most"
        larger = "; or set a larger max_position_embeddings in its config.json" if fresh else ""
        raise ModelError(
            f"{source} has positions for {most} tokens, and this data's sequences have {spec.shape[0]}: "
            f"use {shorter}{larger}"
        )


def _is_position(path: str, layer: nn.Module) -> bool:
    """Whether a layer embeds absolute positions."""
    name = path.rpartition(".")[2]
    return isinstance(layer, nn.Embedding) and (
        name == "wpe" or "position_embedding" in name or "embed_positions" in name
    )


def _positions(layer: Any) -> int:
    """How many tokens have one; some count from behind the padding id, OPT from its ``offset``."""
    offset = getattr(layer, "offset", 0) if layer.padding_idx is None else layer.padding_idx + 1
    return int(layer.num_embeddings - offset)


def _take_sizes(config: Any, task: Task) -> None:
    for spec in task.inputs:
        name = keyword(spec)
        if name == IDS and task.kind == "tokens":
            config.vocab_size, config.pad_token_id = task.outputs, None
        elif name == IDS:
            config.vocab_size, config.pad_token_id = (spec.vocabulary or 0) + first_id(task, True), 0
        elif name == TYPES:
            config.type_vocab_size = max(getattr(config, "type_vocab_size", 0), spec.vocabulary or 0)
        elif name == IMAGE:
            channels, height, width = spec.shape
            config.num_channels = channels
            if hasattr(config, "image_size"):
                config.image_size = height if height == width else [height, width]


def _name_padding(config: Any) -> None:
    """A padding id within the vocabulary: as is the custom the end of text, else the last id."""

    def fits(number: Any) -> bool:
        return isinstance(number, int) and 0 <= number < config.vocab_size

    if not fits(getattr(config, "pad_token_id", None)):
        end = getattr(config, "eos_token_id", None)
        config.pad_token_id = end if fits(end) else config.vocab_size - 1
