"""Several processes that share out the model, too: torch's FSDP2, the refusals it needs, and whole tensors again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import NeedError
from ...kinds import Optimizer
from ...kit.shards import is_shard, refuse_shards
from ...kit.storage import PLAIN
from ...kit.wrap import Wrapper
from ...recipe import Training
from ..compatibility.case import Case, Finding, Rule, cannot
from ..setup.optimize import storage_of

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def shared_out(settings: Training, world: int) -> bool:
    """Whether each process keeps a part of every tensor alone."""
    return settings.parallel == "fsdp" and world > 1


def sharing(case: Case) -> Iterator[Finding]:
    """What is not right where each process has a part of every tensor alone."""
    if not shared_out(case.settings, case.world):
        return
    instead = "take parallel=ddp, where each process has the whole model"
    for name, method in _nested(case.optimizer, case.methods.optimizer):
        try:
            refuse_shards(method, name)
        except NeedError as error:
            yield cannot(f"parallel=fsdp: {error}; {instead}", name, "parallel")
    asking = [name for name, _ in case.methods.losses if "model" in case.methods.asked(name)]
    for name in [*asking, *([case.regimen] if case.methods.regimen else [])]:
        line = f"parallel=fsdp: {name} looks at the weights, of which each process has a part alone; {instead}"
        yield cannot(line, name, "parallel")
    if case.settings.precision == "fp16":
        yield cannot("parallel=fsdp trains in fp32 or bf16, not in fp16", "parallel", "precision")
    if storage_of(case.settings) != PLAIN:
        line = "parallel=fsdp keeps weights and state in full: leave out weights, optimizer_state and offload_state"
        yield cannot(line, "parallel")


def _nested(name: str, method: Optimizer | None) -> Iterator[tuple[str, Optimizer]]:
    """The optimizer, and those it is wrapped around, with their names."""
    while method is not None:
        yield name, method
        name, method = (method.base, method.inner()) if isinstance(method, Wrapper) else ("", None)


def shard(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The model with its tensors shared out: block by block, what is left at once; each whole while it computes."""
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError:
        raise NeedError(f"parallel=fsdp needs torch 2.6 or newer, this is {torch.__version__}") from None
    from torch.distributed.device_mesh import init_device_mesh

    for name, p in model.named_parameters():
        if not p.ndim:
            raise NeedError(f"parallel=fsdp: {name} is a single number, which cannot be shared out; take parallel=ddp")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    narrow = torch.bfloat16 if precision == "bf16" and not mixes_buffers(model) else None  # else autocast does it all
    policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32 if narrow else None)
    for part in [*blocks(model), model]:
        parted = fully_shard(part, mesh=mesh, mp_policy=policy)
        if device.type == "cpu":
            parted.set_force_sum_reduction_for_comms(True)  # gloo computes no means
    return model


def mixes_buffers(model: nn.Module) -> bool:
    """Whether a layer computes with parameters and float buffers together, as BatchNorm does: they must stay alike."""
    for module in model.modules():
        near = [module, *module.children()]
        floats = any(b.is_floating_point() for m in near for b in m.buffers(recurse=False))
        if floats and any(True for _ in module.parameters(recurse=False)):
            return True
    return False


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks: modules of parts, beside others of their class, the outermost; without shared tensors."""
    found: list[nn.Module] = []
    uses = Counter[Tensor](p for _, p in model.named_parameters(remove_duplicate=False))
    _gather(model, uses, found)
    return found


def _gather(module: nn.Module, uses: Mapping[Tensor, int], found: list[nn.Module]) -> None:
    siblings = Counter(type(child) for child in module.children() if _is_block(child))
    for child in module.children():
        own = Counter(p for _, p in child.named_parameters(remove_duplicate=False))
        alone = all(uses[p] == count for p, count in own.items())
        if siblings[type(child)] > 1 and own and alone:
            found.append(child)
        else:
            _gather(child, uses, found)


def _is_block(module: nn.Module) -> bool:
    parametrized = hasattr(module, "parametrizations")
    return any(module.children()) and not parametrized and not isinstance(module, CONTAINERS)


def whole(value: Any, keep: bool = True) -> Any:
    """``value`` with the shards in it made whole, which all processes do together; kept in those that say so."""
    if isinstance(value, Mapping):
        return {key: whole(x, keep) for key, x in value.items()}
    if not is_shard(value):
        return value
    full = value.full_tensor()
    return full.cpu() if keep else None


def cut(x: Tensor, beside: Any) -> Tensor:
    """Of the whole ``x`` (O, ...) the rows that this process has of ``beside``, if that is a shard."""
    if not is_shard(beside) or not x.ndim:
        return x
    from torch.distributed.tensor import distribute_tensor

    x = x.to(beside.device)
    return distribute_tensor(x, beside.device_mesh, beside.placements, src_data_rank=None)


def cut_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's saved state, with tensors of shards cut as those are."""
    places = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state["param_groups"] for i in group["params"]]
    if not any(map(is_shard, places)):
        return state
    beside = dict(zip(numbers, places, strict=True))
    cut_up = {
        i: {name: cut(x, beside[i]) if isinstance(x, Tensor) else x for name, x in kept.items()}
        for i, kept in state["state"].items()
    }
    return state | {"state": cut_up}


RULES: tuple[Rule, ...] = (sharing,)
