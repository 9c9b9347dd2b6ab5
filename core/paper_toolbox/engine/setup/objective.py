"""The loss of a run on one batch: its criterion, plus its penalties, each given what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import needs
from ...kinds import Loss
from ...kit.batch import Inputs, forward
from ...kit.capture import last_linear
from ...kit.precision import widen
from ...task import Task

IGNORED = -100
SAMPLEWISE = frozenset({"features", "teacher_features", "teacher_logits"})


def plain_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, or mean squared error for regression: the criterion of runs that name none, and of evaluation."""
    return F.mse_loss if task.kind == "regression" else F.cross_entropy


def batch_loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """``plain_loss`` on a model's outputs as they are; (B, T, V) and (B, T) for tokens, -100 left out."""
    plain = plain_loss(task)
    if task.kind != "tokens":
        return plain
    return lambda outputs, targets: plain(outputs.flatten(0, 1), targets.flatten())


@dataclass(frozen=True)
class Term:
    """One loss of the sum, and what its verb asks for."""

    name: str
    verb: Callable[..., Tensor]
    asked: frozenset[str]


class Objective(nn.Module):
    """Calls the model on a batch and returns the loss; trains the parameters of stateful losses along."""

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
        self,
        call: nn.Module,
        inputs: Inputs,
        targets: Tensor,
        *,
        index: Tensor,
        step: int = 0,
        progress: float = 0.0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Tensor:
        """The loss; ``call`` is the model, wrapped perhaps. Losses see float32 or wider, never autocast."""
        given: dict[str, Any] = {"index": index, "step": step, "progress": progress, "inputs": inputs}
        given["model"], teacher = self.watched
        with autocast():
            outputs = forward(call, inputs)
            if teacher is not None and self.asked & {"teacher_logits", "teacher_features"}:
                with torch.no_grad():
                    given["teacher_logits"] = forward(teacher, inputs)
        watched = {name: widen(x) for name, x in (given | self.seen).items() if name in SAMPLEWISE}
        logits, targets, watched = self._counted(widen(outputs), targets, watched)
        return self._sum(logits, targets, given | watched)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of outputs already computed, for losses that ask for nothing else."""
        logits, targets, _ = self._counted(widen(outputs), targets, {})
        return self._sum(logits, targets, {})

    def _counted(
        self, outputs: Tensor, targets: Tensor, watched: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(B, T, V), (B, T) -> (N, V), (N,) for tokens, without the positions that do not count."""
        if self.task.kind != "tokens":
            return outputs, targets, watched
        outputs, targets = outputs.flatten(0, 1), targets.flatten()
        watched = {name: x.flatten(0, 1) for name, x in watched.items()}
        if not self.padded:
            return outputs, targets, watched
        kept = targets != IGNORED
        return outputs[kept], targets[kept], {name: x[kept] for name, x in watched.items()}

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
