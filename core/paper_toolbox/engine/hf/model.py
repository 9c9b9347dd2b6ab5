"""Opening a model of transformers for a task: random, or from safetensors; no pickle is read, no foreign code run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...kit import batch
from ...kit.splice import put
from ...task import Task
from ..setup.packages import flag, known, package
from . import config as hf_config
from .config import IDS, MASK
from .files import check_sum, config_sum, folder_of, read_config, read_weights, weight_files, weights_sum

OPTIONS = ("pretrained", "download", "revision", "config_sha256", "weights_sha256")
# What transformers raises on a configuration that does not hold together.
WRONG = (OSError, ValueError, ImportError, AttributeError, TypeError, LookupError, RuntimeError, AssertionError)


class Keywords(nn.Module):
    """A transformers model that takes a task's inputs, by position or by the task's names, and gives its logits.

    The data's id 0 is the model's id ``first``. Where the mask hides an id, ``padding`` stands in its place: some
    models look for it, to find the last token or to count positions.
    """

    def __init__(self, model: nn.Module, names: Mapping[str, str], first: int = 0, padding: int = 0) -> None:
        super().__init__()
        self.model = model
        self.names = dict(names)  # the task's name -> the model's keyword
        self.first, self.padding = first, padding

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        asked = dict(zip(self.names.values(), inputs, strict=False))
        asked |= {self.names[name]: x for name, x in named.items()}
        if IDS in asked and self.first:
            asked[IDS] = asked[IDS] + self.first
        if IDS in asked and MASK in asked:
            asked[IDS] = torch.where(asked[MASK].bool(), asked[IDS], self.padding)
        return batch.forward(self.model, asked)


def transformers_model(name: str, task: Task, options: Mapping[str, Any], weights: bool) -> nn.Module:
    """``hf:FOLDER`` or ``hf:ORG/NAME`` from the hub's cache (``?download=true`` asks the hub).

    Weights are read from safetensors alone; ``?pretrained=false`` keeps the configuration and starts from random.
    """
    source = f"hf:{name}"
    library = package("transformers", source)
    known(source, options, OPTIONS)
    names, job = hf_config.keywords(source, task), hf_config.served(source, task)
    folder, fresh = folder_of(name, options), not flag(options, "pretrained", True)
    told = read_config(source, folder)
    check_sum(source, options, "config_sha256", config_sum(folder))
    with _quiet(library):
        try:
            config = hf_config.read(library, folder, task, fresh)
            hf_config.check_class(library, source, config, job)
            auto = getattr(library, f"AutoModelFor{job}")
            if fresh or not weights:
                model = auto.from_config(config, dtype=torch.float32)
            else:
                model = _pretrained(source, folder, auto, config, told, options)
        except WRONG as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{source} cannot be opened: {said}") from error
    _plain_layers(model)
    hf_config.check_inputs(source, model, task, fresh)
    return Keywords(model, names, hf_config.first_id(task, fresh), getattr(config, "pad_token_id", None) or 0)


def _pretrained(
    source: str, folder: Path, auto: Any, config: Any, told: dict[str, Any], options: Mapping[str, Any]
) -> nn.Module:
    """The model with the folder's weights. The files are read here: transformers itself would read pickles as well."""
    if told.get("quantization_config"):
        raise ModelError(
            f"{source} cannot be opened: its weights are quantized (quantization_config), not to be trained"
        )
    files = weight_files(source, folder)
    if "weights_sha256" in options:
        check_sum(source, options, "weights_sha256", weights_sum(files))
    with torch.device("meta"):
        kind = type(auto.from_config(config, dtype=torch.float32))
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=read_weights(source, files),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # of a new head; of anything else it is refused below
        output_loading_info=True,
    )
    _check_loaded(source, model, report)
    return model  # type: ignore[no-any-return]  # transformers ships no types


def _check_loaded(source: str, model: Any, report: Mapping[str, Any]) -> None:
    """A head, or the pooler in front of it, may be new; the body must have come from the files, whole."""
    body = f"{model.base_model_prefix}."
    lost = {"lack": report["missing_keys"], "do not fit": [key for key, *_ in report["mismatched_keys"]]}
    for what, keys in lost.items():
        if inside := sorted(key for key in keys if key.startswith(body) and "pooler" not in key):
            raise ModelError(
                f"{source} cannot be opened: its weights {what} {inside[0]} and {len(inside) - 1} more tensors of "
                f"{type(model).__name__}: are they of another model than its config.json?"
            )


def _plain_layers(model: nn.Module) -> None:
    """GPT-2's own Conv1D is a linear layer that keeps its weight transposed: put ``nn.Linear`` in its place.

    So whatever looks for linear layers finds it: pruning, low rank, normalizers, optimizers of matrices.
    """
    from transformers.pytorch_utils import Conv1D

    for path, layer in [(p, m) for p, m in model.named_modules() if type(m) is Conv1D]:
        made = nn.Linear(layer.nx, layer.nf, device="meta")  # draws no random numbers
        made.weight = nn.Parameter(layer.weight.detach().T.contiguous())
        made.bias = layer.bias
        put(model, path, made.train(layer.training))


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No progress bars and no reports: what they tell is either meant, as a new head is, or an error here."""
    log = library.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
