"""How a rule's step runs: as it is written, by torch's own kernel where the rule names one, or compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import ParamError
from .layout import Given, layout_of
from .plan import Plans, elementwise, pieces, settle

if TYPE_CHECKING:
    from .rule import Rule

EngineName = Literal["auto", "eager", "compiled"]
WIDE = (torch.float32, torch.float64)  # in less a kernel rounds once, and the update at every call
PIECE = 2**17  # numbers of a tensor that take an elementwise step at a time, so that they stay in the cache
DEVICES = ("cpu", "cuda")  # that kernels were written for


class Engine(Protocol):
    """Runs one step of the tensors of a group; ``group`` is its number, if they are those that the optimizer holds."""

    def __call__(self, rule: Rule, given: list[Given], group: int | None = None) -> None: ...


def eager(rule: Rule, given: list[Given], group: int | None = None) -> None:
    """The update as it is written; where it is elementwise on tensors as they are."""
    for p, grad, state in given:
        if rule.view == "flat":
            left = dict(state)
            rule.update(p, grad, left)
            settle(state, left)
        else:
            layout = layout_of(p, rule.view)
            seen = layout.show(p, grad, state)
            rule.update(seen.p, seen.grad, seen.state)
            layout.put_back(seen, p, state)


class Auto:
    """Torch's own kernel for what it takes, together; the rest op by op, elementwise steps in pieces."""

    def __init__(self) -> None:
        self.plans = Plans()

    def __call__(self, rule: Rule, given: list[Given], group: int | None = None) -> None:
        """One step of the tensors of a group."""
        if rule.fused is not None:
            given = _by_kernel(rule, given)
        for seen in self.plans.plan(rule.view, given, group).shown(given):
            if seen.p.numel() > PIECE and seen.p.device.type == "cpu" and elementwise(rule.view, seen):
                for piece in pieces(seen, PIECE):
                    rule.update(piece.p, piece.grad, piece.state)
            else:
                rule.update(seen.p, seen.grad, seen.state)


def _by_kernel(rule: Rule, given: list[Given]) -> list[Given]:
    """Step with torch's kernel; what it does not take is left over."""
    alike: dict[tuple[int, torch.dtype, torch.device], list[Given]] = {}
    left = []
    for each in given:
        p, _, state = each
        if _in_one_piece(*each):
            alike.setdefault((state["step"], p.dtype, p.device), []).append(each)
        else:
            left.append(each)
    assert rule.fused
    for (step, dtype, device), some in alike.items():
        if dtype not in WIDE or device.type not in DEVICES:
            left += some
            continue
        params, grads, states = (list(column) for column in zip(*some, strict=True))
        count = torch.full((), step, dtype=torch.float32, device=device)
        rule.fused(params, grads, states, [count] * len(some))
    return left


def _in_one_piece(p: Tensor, grad: Tensor, state: dict[str, Any]) -> bool:
    """Whether a kernel may run through the memory of all of them alike."""
    if not (p.is_contiguous() and grad.is_contiguous()):
        return False
    return all(x.is_contiguous() for name, x in state.items() if name != "step")


def engine_of(name: str) -> Engine:
    """The engine called ``name``; torch's compiler is imported only when it is asked for."""
    if name == "compiled":
        from .compiled import Compiled

        return Compiled()
    if name not in ("auto", "eager"):
        raise ParamError(f"engine = {name!r}: must be 'auto', 'eager' or 'compiled'")
    return Auto() if name == "auto" else eager
