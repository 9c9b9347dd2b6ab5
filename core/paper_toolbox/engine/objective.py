"""The loss of a run on one batch: its criterion, plus its penalties, each given what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import needs
from ..kinds import Loss
from ..kit.batch import Inputs, forward
from ..kit.capture import last_linear
from ..task import Task

IGNORED = -100


def plain_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, or mean squared error for regression: the criterion of runs that name none, and of evaluation."""
    return F.mse_loss if task.kind == "regression" else F.cross_entropy


@dataclass(frozen=True)
class Term:
    """One loss of the sum, and what its verb asks for."""

    name: str
    verb: Callable[..., Tensor]
    asked: frozenset[str]


class Objective(nn.Module):
    """Calls the model on a batch and returns (loss, outputs); trains the parameters of stateful losses along."""

    def __init__(
        self, losses: Sequence[tuple[str, Loss]], task: Task, model: nn.Module, teacher: nn.Module | None, padded: bool
    ) -> None:
        super().__init__()
        self.task, self.padded = task, padded
        self.watched = [model, teacher]  # in a list: neither is a part of the objective
        self.states = nn.ModuleDict()
        self.terms = [self._term(name, loss) for name, loss in losses]
        if not any(loss.role == "criterion" for _, loss in losses):
            self.terms.insert(0, Term(task.kind, plain_loss(task), frozenset()))
        self.asked = frozenset().union(*(term.asked for term in self.terms))
        self.seen: dict[str, Tensor] = {}
        self.hooks: list[Any] = []
        self._watch("features", model)
        if teacher is not None:
            self._watch("teacher_features", teacher)

    def forward(
        self, call: nn.Module, inputs: Inputs, targets: Tensor, *, index: Tensor, step: int = 0, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """``call`` is the model, wrapped for several devices perhaps."""
        outputs = forward(call, inputs)
        if not self.asked and not self.padded:
            logits, flat = _flatten(self.task, outputs, targets)
            return self._sum(logits, flat, {}), outputs
        available: dict[str, Any] = {"index": index, "step": step, "progress": progress, "inputs": inputs}
        model, teacher = self.watched
        available["model"] = model
        if self.asked & {"teacher_logits", "teacher_features"} and teacher is not None:
            with torch.no_grad():
                available["teacher_logits"] = forward(teacher, inputs)
        available |= self.seen
        mask = _flatten(self.task, outputs, targets)[1] != IGNORED if self.padded else None
        logits, flat = _flatten(self.task, outputs, targets)
        for name in ("features", "teacher_features", "teacher_logits"):
            if name in available and self.task.kind == "tokens":
                available[name] = available[name].flatten(0, 1)
        if mask is not None:
            logits, flat = logits[mask], flat[mask]
            available |= {k: v[mask] for k, v in available.items() if k.startswith(("features", "teacher_"))}
        return self._sum(logits, flat, available), outputs

    def _sum(self, logits: Tensor, targets: Tensor, available: dict[str, Any]) -> Tensor:
        losses = [t.verb(logits, targets, **{k: available[k] for k in t.asked if k in available}) for t in self.terms]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _term(self, name: str, loss: Loss) -> Term:
        module = loss.build(self.task)
        if module is not None:
            self.states[name] = module
        verb = loss.__call__ if module is None else module
        return Term(name, verb, frozenset(needs.of(loss.__call__ if module is None else module.forward)))

    def _watch(self, name: str, model: nn.Module) -> None:
        if name in self.asked:

            def see(_: nn.Module, args: tuple[Tensor, ...]) -> None:
                self.seen[name] = args[0]

            self.hooks.append(last_linear(model).register_forward_pre_hook(see))

    def close(self) -> None:
        """Stop watching the models."""
        for hook in self.hooks:
            hook.remove()


def _flatten(task: Task, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, V), (B, T) -> (B·T, V), (B·T,) for tokens; otherwise unchanged."""
    if task.kind == "tokens":
        return outputs.flatten(0, 1), targets.flatten()
    return outputs, targets
