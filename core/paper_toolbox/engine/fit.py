"""The training loop: what a checkpoint holds, and the steps between two of them."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .. import artifact
from ..errors import Interrupted, ModelError
from ..host import Host
from ..kit.batch import Inputs
from ..recipe import Recipe
from . import checkpoint
from .data import Batches, Data
from .evaluate import evaluate, target_scale
from .objective import Objective
from .progress import Show

Sample = tuple[Tensor, Inputs, Tensor]


@dataclass
class Session:
    """All that one training run is made of. ``wrapped`` is the model as several devices call it."""

    recipe: Recipe
    host: Host
    data: Data
    model: nn.Module
    wrapped: nn.Module
    objective: Objective
    optimizer: Any
    closure: str
    accelerator: Accelerator
    batches: Batches

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(len(self.batches) / self.recipe.training.accumulate)


@dataclass
class Progressed:
    """Where a run stands; all of it goes into the checkpoint."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    samples: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None


class Fit:
    """Trains a session; with a ``folder``, keeps metrics, the best weights and a checkpoint of the last state there."""

    def __init__(self, session: Session, folder: Path | None, show: Show) -> None:
        self.session, self.folder, self.show = session, folder, show
        self.settings = session.recipe.training
        self.at = Progressed()
        self.best_state: dict[str, Tensor] = {}
        self.stop_asked = False
        self.rates = [group.get("lr") for group in session.optimizer.param_groups]
        self.total = self.settings.epochs * session.steps_per_epoch
        device = session.accelerator.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), device=device, dtype=exact)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; the figures of the epoch whose weights are kept."""
        hook = self.session.host.manager.hook
        hook.run_started(recipe=self.session.recipe.to_dict(), folder=str(self.folder or ""))
        self.show.start("training", self.total, self.at.step)
        try:
            with self._interruptible():
                while self.at.epoch < self.settings.epochs:
                    self.epoch()
        finally:
            self.show.stop()
            self.session.objective.close()
        kept = self.at.best if self.settings.keep == "best" else self.at.history[-1]
        assert kept is not None, "an epoch has ended"
        return {k: v for k, v in kept.items() if k != "seconds"}

    def epoch(self) -> None:
        """One pass over the training part, from where the run stands; then evaluate and save."""
        began, at = time.perf_counter(), self.at
        self.session.batches.epoch = at.epoch
        self.session.wrapped.train()
        self.loss.fill_(at.loss_sum)
        windows = _windows(self.session.batches.indexed(at.batch), self.settings.accumulate)
        for window in windows:
            self._step(window)
            if self.stop_asked:
                at.seconds += time.perf_counter() - began
                self._interrupt()
        at.seconds += time.perf_counter() - began
        self._end_epoch()

    def _step(self, window: list[Sample]) -> None:
        at, optimizer = self.at, self.session.optimizer
        factor = self._factor(at.step)
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            if rate is not None:
                group["lr"] = rate * factor
        if self.session.closure == "none":
            loss = self._gradient(window)
            optimizer.step()
        elif self.session.closure == "gradient":
            loss = optimizer.step(lambda: self._gradient(window))
        else:
            loss = optimizer.step(lambda: self._forward(window))
        count = sum(len(index) for index, _, _ in window)
        self.loss += loss.detach() * count
        at.samples += count
        at.step += 1
        at.batch += len(window)
        self.show.advance(at.step, self._text)

    def _gradient(self, window: list[Sample]) -> Tensor:
        """Zero the gradients, forward and backward; the mean loss of the window."""
        accelerator, wrapped = self.session.accelerator, self.session.wrapped
        self.session.optimizer.zero_grad()
        total = torch.zeros((), device=accelerator.device)
        with torch.enable_grad():
            for i, sample in enumerate(window):
                last = i == len(window) - 1
                with nullcontext() if last else accelerator.no_sync(wrapped):
                    loss = self._loss(sample) / len(window)
                    accelerator.backward(loss)
                total = total + loss.detach()
        if self.settings.clip_norm is not None:
            accelerator.clip_grad_norm_(self._parameters(), self.settings.clip_norm)
        return total

    def _forward(self, window: list[Sample]) -> Tensor:
        """The mean loss of the window, no backward."""
        return torch.stack([self._loss(sample) for sample in window]).mean()

    def _loss(self, sample: Sample) -> Tensor:
        index, inputs, targets = sample
        loss: Tensor = self.session.objective(
            self.session.wrapped,
            inputs,
            targets,
            index=index,
            step=self.at.step,
            progress=self.at.step / self.total,
            autocast=self.session.accelerator.autocast,
        )
        return loss

    def _parameters(self) -> Iterable[nn.Parameter]:
        return (p for group in self.session.optimizer.param_groups for p in group["params"])

    def _factor(self, step: int) -> float:
        """What the learning rate is multiplied by at ``step``: linear warm-up, then the schedule down to 0."""
        warm = round(self.settings.warmup * self.total)
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, self.total - warm)
        return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}[
            self.settings.schedule
        ]

    def _end_epoch(self) -> None:
        at, task = self.at, self.session.data.task
        train_loss = self.loss.item() / at.samples
        if not math.isfinite(train_loss):
            raise ModelError(
                f"the loss became {train_loss} in epoch {at.epoch + 1}: lower the learning rate, or set clip_norm=1"
                + (f"; the state before it is in {self.folder}" if self.folder and at.epoch else "")
            )
        device = self.session.accelerator.device
        batches = Batches(self.session.data.validation, max(256, self.settings.batch_size), device=device)
        figures = evaluate(self.session.model, batches, task, target_scale(self.session.data.preprocessing))
        at.history.append(
            {
                "epoch": at.epoch + 1,
                "step": at.step,
                "train_loss": train_loss,
                **figures,
                "seconds": round(at.seconds, 3),
            }
        )
        self._keep(at.history[-1])
        at.epoch, at.batch, at.loss_sum, at.samples = at.epoch + 1, 0, 0.0, 0
        self.show.line(self._text())
        self.session.host.manager.hook.step_done(step=at.step, figures=figures)
        self._save()

    def _text(self) -> str:
        at, metric = self.at, self.session.data.task.metric
        loss = f"loss {self.loss.item() / at.samples:.4f}" if at.samples else ""
        if not at.history:
            return loss
        last = at.history[-1]
        if not at.samples:
            loss = f"loss {last['train_loss']:.4f}"
        return f"epoch {last['epoch']}/{self.settings.epochs}  {loss}  validation {metric} {last[metric]:.4f}"

    def _keep(self, row: dict[str, Any]) -> None:
        """Keep the weights if this epoch is the best so far, or the last one asked for."""
        task, last = self.session.data.task, row["epoch"] == self.settings.epochs
        sign = 1 if task.higher_is_better else -1
        better = self.at.best is None or sign * row[task.metric] > sign * self.at.best[task.metric]
        if better:
            self.at.best = row
        if better if self.settings.keep == "best" else last:
            state = self.session.model.state_dict()
            if self.folder is None:
                self.best_state = {k: v.detach().clone() for k, v in state.items()}
            elif self.session.accelerator.is_main_process:
                artifact.write_weights(self.folder, state)

    def _save(self) -> None:
        if self.folder is None or not self.session.accelerator.is_main_process:
            return
        artifact.write_history(self.folder, self.at.history)
        self.at.loss_sum = self.loss.item() if self.at.samples else 0.0
        state = {
            "at": dict(vars(self.at)),
            "model": self.session.model.state_dict(),
            "objective": self.session.objective.state_dict(),
            "optimizer": self.session.optimizer.state_dict(),
            "random": checkpoint.random_state(),
            "plugins": artifact.provenance(self.session.recipe.plugins),
        }
        if (scaler := self.session.accelerator.scaler) is not None:
            state["scaler"] = scaler.state_dict()
        checkpoint.save(self.folder / "checkpoint" / "last.safetensors", state)

    def restore(self) -> None:
        """Continue from the folder's checkpoint."""
        assert self.folder is not None, "only a run with a folder is resumed"
        state = checkpoint.load(self.folder / "checkpoint" / "last.safetensors")
        self.session.model.load_state_dict(state["model"])
        self.session.objective.load_state_dict(state["objective"])
        self.session.optimizer.load_state_dict(state["optimizer"])
        if (scaler := self.session.accelerator.scaler) is not None and "scaler" in state:
            scaler.load_state_dict(state["scaler"])
        self.at = Progressed(**state["at"])
        checkpoint.restore_random_state(state["random"])

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C lets the step end and the state be saved; the second stops at once."""

        def ask(*_: Any) -> None:
            if self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True

        try:
            earlier = signal.signal(signal.SIGINT, ask)
        except ValueError:  # not the main thread: Ctrl-C is not ours to catch
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, earlier)

    def _interrupt(self) -> None:
        self._save()
        where = f"epoch {self.at.epoch + 1}, step {self.at.step}"
        saved = f"; saved, continue with: toolbox train --resume --out {self.folder}" if self.folder else ""
        raise Interrupted(f"interrupted in {where}{saved}")


def _windows(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    window: list[Sample] = []
    for sample in samples:
        window.append(sample)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
