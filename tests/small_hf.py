"""Small models of transformers, saved as folders by the library itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", ENCODER | {"vocab_size": 30, "max_position_embeddings": 16}),
    "roberta": ("Roberta", ENCODER | {"vocab_size": 30, "max_position_embeddings": 18}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 30, "max_position_embeddings": 16, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    ),
    "vit": ("ViT", ENCODER | {"image_size": 8, "patch_size": 4, "num_channels": 1}),
    "gpt2": (
        "GPT2",
        {"vocab_size": 30, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
        | {"bos_token_id": 29, "eos_token_id": 29},
    ),
    "llama": ("Llama", ENCODER | {"vocab_size": 30, "max_position_embeddings": 16, "num_key_value_heads": 1}),
}


def config_of(name: str, **more: Any) -> Any:
    """The small configuration ``name``, other values in ``more``."""
    import transformers

    stem, fields = SMALL[name]
    return getattr(transformers, f"{stem}Config")(**fields | more)


def saved(folder: Path, name: str, **more: Any) -> Path:
    """A folder that holds the configuration alone."""
    config_of(name, **more).save_pretrained(folder)
    return folder
