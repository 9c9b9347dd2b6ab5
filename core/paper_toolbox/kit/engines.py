"""How a rule's step runs: as it is written, by torch's own kernel where the rule names one, or compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from ..errors import ParamError
from .layout import AS_THEY_ARE, Given, layout_of

if TYPE_CHECKING:
    from .rule import Rule

EngineName = Literal["auto", "eager", "compiled"]


class Engine(Protocol):
    """Runs one step of the tensors of a group."""

    def __call__(self, rule: Rule, given: list[Given]) -> None: ...


def eager(rule: Rule, given: list[Given]) -> None:
    """The update as it is written; where it is elementwise on tensors as they are."""
    for p, grad, state in given:
        layout = AS_THEY_ARE if rule.view == "flat" else layout_of(p, rule.view)
        seen = layout.show(p, grad, state)
        rule.update(seen.p, seen.grad, seen.state)
        layout.put_back(seen, p, state)


def auto(rule: Rule, given: list[Given]) -> None:
    """Torch's own kernel for what it takes, together; ``eager`` for the rest."""
    if rule.fused is not None:
        given = _by_kernel(rule, given)
    eager(rule, given)


def _by_kernel(rule: Rule, given: list[Given]) -> list[Given]:
    """Step with torch's kernel; what it does not take is left over."""
    alike: dict[tuple[int, torch.dtype, torch.device], list[Given]] = {}
    left = []
    for each in given:
        p, _, state = each
        if _fits(*each):
            alike.setdefault((state["step"], p.dtype, p.device), []).append(each)
        else:
            left.append(each)
    assert rule.fused
    for (step, _, device), some in alike.items():
        params, grads, states = (list(column) for column in zip(*some, strict=True))
        before = torch.full((len(some),), step - 1, dtype=torch.float32, device=device)  # torch counts up itself
        rule.fused(params, grads, states, list(before.unbind()))
    return left


def _fits(p: Tensor, grad: Tensor, state: dict[str, Tensor]) -> bool:
    """Whether a kernel may run through the memory of all of them alike."""
    wide = p.dtype in (torch.float32, torch.float64)  # in less the kernel rounds once, and the update at every call
    known = p.device.type in ("cpu", "cuda")
    return wide and known and all(x.is_contiguous() for x in (p, grad, *(x for k, x in state.items() if k != "step")))


def engine_of(name: str) -> Engine:
    """The engine called ``name``; torch's compiler is imported only when it is asked for."""
    if name == "compiled":
        from .compiled import Compiled

        return Compiled()
    if name not in ("auto", "eager"):
        raise ParamError(f"engine = {name!r}: must be 'auto', 'eager' or 'compiled'")
    return auto if name == "auto" else eager
