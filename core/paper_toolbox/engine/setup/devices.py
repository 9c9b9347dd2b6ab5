"""Where a run computes, and in which precision."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from ...errors import NeedError
from ...recipe import Recipe, Training
from ..loop.shards import shard, shared_out


def accelerator_of(recipe: Recipe) -> Accelerator:
    """The device, precision and processes that ``recipe`` asks for; what this machine lacks is a ``NeedError``."""
    settings = recipe.training
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise NeedError("device = cuda: this machine has no usable CUDA GPU; take device=cpu or auto")
    if settings.device == "mps" and not torch.backends.mps.is_available():
        raise NeedError("device = mps: this machine has no Apple GPU; take device=cpu or auto")
    cpu = settings.device == "cpu" or (settings.device == "auto" and not _has_gpu())
    if settings.precision == "fp16" and cpu:
        raise NeedError("precision = fp16 trains on a GPU only: take bf16, which runs on CPUs too")
    # One process may run several recipes: accelerate keeps the first one's precision unless told to forget it.
    AcceleratorState._reset_state(reset_partial_state=int(os.environ.get("WORLD_SIZE", "1")) == 1)
    precision = {"fp32": "no"}.get(settings.precision, settings.precision)
    copies = DistributedDataParallelKwargs(find_unused_parameters=settings.parallel == "ddp_unused")
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[copies])


def spread(model: nn.Module, accelerator: Accelerator, settings: Training) -> nn.Module:
    """The model as several devices call it, or in the run's precision."""
    if shared_out(settings, accelerator.num_processes):
        return shard(model, accelerator.device, settings.precision)
    if accelerator.num_processes > 1 or settings.precision != "fp32":
        prepared: nn.Module = accelerator.prepare_model(model)
        return prepared
    return model


def _has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()
