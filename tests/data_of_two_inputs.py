"""A data source of token ids with an attention mask, for ``module:function``."""

from __future__ import annotations

import torch
from torch import Tensor


def open_data() -> tuple[dict[str, Tensor], Tensor]:
    """Sequences of 8 ids, of which the first ones count; the class is whether the first id is large."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (200, 8), generator=generator)
    mask = (torch.arange(8) < torch.randint(2, 9, (200, 1), generator=generator)).long()
    return {"input_ids": ids, "attention_mask": mask}, (ids[:, 0] >= 10).long()
