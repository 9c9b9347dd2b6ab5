"""The training loop: epochs of steps, each epoch ending with figures and a checkpoint."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import Interrupted, ModelError, PluginError
from ...kit.samples import Samples
from ..data.open_data import Batches
from ..progress import Show
from ..setup.schedule import factor
from ..setup.session import Progress, Sample, Session
from .autopsy import first_bad
from .evaluate import evaluate, target_scale
from .interrupt import Request, interruptible
from .keep import checkpoint_of, clear, keep_weights, restore, save
from .observe import Watch
from .regimen import Epoch
from .together import Agreement, first_ones, share_buffers, told_plainly
from .windows import windows


class Fit:
    """Trains a session; with a ``folder``, keeps metrics, the best weights and a checkpoint of the last state there."""

    def __init__(self, session: Session, folder: Path | None, show: Show) -> None:
        self.session, self.folder, self.show = session, folder, show
        self.settings = session.recipe.training
        self.at = Progress()
        self.kept: dict[str, Tensor] = {}
        self.request = Request()
        self.agreement = Agreement(session.accelerator)
        self.autocast = nullcontext if self.settings.precision == "fp32" else session.accelerator.autocast
        self.watch = Watch()
        self.began = 0.0
        self.rates = [group.get("lr") for group in session.optimizer.param_groups]
        device = session.accelerator.device
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), device=device, dtype=exact)  # sum over the epoch's samples, never synchronised

    def resume(self, folder: Path, accept_changes: bool = False) -> None:
        """Continue where the checkpoint in ``folder`` stands; from the start where there is none yet."""
        if self.session.accelerator.is_main_process:
            clear(folder)
        if checkpoint_of(folder).exists():
            self.at = restore(folder, self.session, accept_changes)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; the figures of the epoch whose weights are kept."""
        self.show.start("training", self.session.steps_total, self.at.step)
        for note in self.session.notes:
            self.show.line(f"careful: {note.line}")
        try:
            with interruptible() as self.request, told_plainly(self.session.model, self.request):
                while self.at.epoch < self.settings.epochs:
                    self.epoch()
        finally:
            self.show.stop()
            self.session.objective.close()
        kept = self.at.best if self.settings.keep == "best" else self.at.history[-1]
        assert kept is not None, "an epoch has ended"
        return {name: value for name, value in kept.items() if name != "seconds"}

    def epoch(self) -> None:
        """One pass over the training part, from where the run stands; then evaluate and save."""
        self.began = time.perf_counter()
        self.session.batches.epoch = self.at.epoch
        self.session.wrapped.train()
        self.loss.fill_(self.at.loss_sum)
        stopped = self._regimen() if self.session.regimen is not None else self._steps()
        self.at.seconds += time.perf_counter() - self.began
        if stopped and self.at.batch < len(self.session.batches):
            self._interrupt()
        self._end_epoch()
        if self.agreement.now(self.request.asked):
            self._interrupt()

    def _steps(self) -> bool:
        """The epoch's; whether someone asked to stop in the midst of them."""
        for window in windows(self.session.batches.indexed(self.at.batch), self.settings.accumulate):
            self.take(window)
            if self.agreement.step(self.request.asked):
                return True
        return False

    def _regimen(self) -> bool:
        epoch = Epoch(self.session)
        self._set_rates()
        self.session.regimen.train(epoch)  # type: ignore[union-attr]  # the caller has looked
        self.at.samples, self.at.batch = epoch.samples, len(self.session.batches)
        self.at.step += self.session.steps_per_epoch
        self.loss.fill_(epoch.mean_loss() * epoch.samples)
        return False

    def take(self, window: list[Sample]) -> None:
        """One step of the optimizer."""
        at, optimizer = self.at, self.session.optimizer
        self._set_rates()
        match self.session.closure:
            case "none":
                loss = self._gradient(window)
                optimizer.step()
            case "gradient":
                loss = optimizer.step(lambda: self._gradient(window))
            case "loss":
                loss = optimizer.step(lambda: torch.stack([self._loss(sample) for sample in window]).mean())
            case _:
                loss = optimizer.step(self._samples(window))
        count = sum(len(index) for index, _, _ in window)
        self.loss += loss.detach() * count
        at.samples += count
        at.step += 1
        at.batch += len(window)
        if self.watch.stepped(at, loss, optimizer, at.seconds + time.perf_counter() - self.began):
            self.request.asked = True
        self.show.advance(at.step, self._text)

    def _samples(self, window: list[Sample]) -> Samples:
        batches = [(inputs, targets) for _, inputs, targets in window]
        return Samples(self.session.wrapped, batches, self.session.objective.score, self.autocast)

    def _set_rates(self) -> None:
        if self.session.scheduled:
            return
        now = factor(self.settings, self.at.step, self.session.steps_total)
        for group, rate in zip(self.session.optimizer.param_groups, self.rates, strict=True):
            if rate is not None:
                group["lr"] = rate * now

    def _gradient(self, window: list[Sample]) -> Tensor:
        """Zero the gradients, forward and backward; the mean loss of the window."""
        accelerator, wrapped, optimizer = self.session.accelerator, self.session.wrapped, self.session.optimizer
        optimizer.zero_grad()
        backward = Tensor.backward if accelerator.scaler is None else accelerator.backward  # which divides by 1 first
        losses = []
        with torch.enable_grad():
            for i, sample in enumerate(window):
                with nullcontext() if i == len(window) - 1 else accelerator.no_sync(wrapped):
                    loss = self._loss(sample) if len(window) == 1 else self._loss(sample) / len(window)
                    backward(loss)
                losses.append(loss.detach())
        if self.settings.clip_norm is not None:
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            accelerator.clip_grad_norm_(parameters, self.settings.clip_norm)
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _loss(self, sample: Sample) -> Tensor:
        index, inputs, targets = sample
        given = {"index": index, "step": self.at.step, "progress": self.at.step / self.session.steps_total}
        loss: Tensor = self.session.objective(self.session.wrapped, inputs, targets, autocast=self.autocast, **given)
        return loss

    def _end_epoch(self) -> None:
        at, data = self.at, self.session.data
        train_loss = self._mean_loss()
        if not math.isfinite(train_loss):
            self._stop(train_loss)
        size, device = max(256, self.settings.batch_size), self.session.accelerator.device
        validation = Batches(data.validation, size, device=device)
        share_buffers(self.session.model, self.session.accelerator)
        figures = evaluate(self.session.model, validation, data.task, target_scale(data.preprocessing))
        figures = first_ones(figures, self.session.accelerator)
        if not math.isfinite(figures["loss"]):
            self._stop(figures["loss"])
        row = {"epoch": at.epoch + 1, "step": at.step, "train_loss": train_loss, **figures}
        at.history.append(row | {"seconds": round(at.seconds, 3)})
        self._keep(at.history[-1])
        at.epoch, at.batch, at.samples = at.epoch + 1, 0, 0
        self.show.line(self._text())
        if self.watch.evaluated(at.history[-1]):
            self.request.asked = True
        self._save()

    def _stop(self, loss: float) -> None:
        """Say what went wrong first; the last good state stays in the folder."""
        self.show.line(f"the loss became {loss}: playing epoch {self.at.epoch + 1} again to see where")
        where = first_bad(self.session, self.folder)
        before = f"; the state before it is in {self.folder}" if self.folder and self.at.epoch else ""
        advice = "lower the learning rate, or set clip_norm=1"
        said = f"{where}; {advice}" if where else advice
        raise ModelError(f"the loss became {loss} in epoch {self.at.epoch + 1}: {said}{before}")

    def _mean_loss(self) -> float:
        """Over the epoch's samples of all processes."""
        both = torch.stack([self.loss, self.loss.new_tensor(float(self.at.samples))])
        if self.session.accelerator.num_processes > 1:
            both = self.session.accelerator.reduce(both, "sum")
        return (both[0] / both[1]).item()

    def _keep(self, row: dict[str, Any]) -> None:
        """Keep the weights if this epoch is the best so far, or the last one asked for."""
        task = self.session.data.task
        sign = 1 if task.higher_is_better else -1
        better = self.at.best is None or sign * row[task.metric] > sign * self.at.best[task.metric]
        if better:
            self.at.best = row
        if better if self.settings.keep == "best" else row["epoch"] == self.settings.epochs:
            self.kept = keep_weights(self.folder, self.session)

    def _save(self) -> None:
        self.at.loss_sum = self.loss.item() if self.at.samples else 0.0
        if self.folder is not None:
            save(self.folder, self.session, self.at)

    def _interrupt(self) -> None:
        self._save()
        where = f"epoch {self.at.epoch + 1}, step {self.at.step}"
        saved = f"; saved, continue with: toolbox train --resume --out {self.folder}" if self.folder else ""
        if self.watch.failed is not None:
            raise PluginError(f"{self.watch.failed}; the run stopped in {where}{saved}") from self.watch.failed
        raise Interrupted(f"interrupted in {where}{saved}")

    def _text(self) -> str:
        """The loss so far, and the last epoch's metric."""
        at, metric = self.at, self.session.data.task.metric
        mean = self.loss.item() / at.samples if at.samples else at.history[-1]["train_loss"]
        if not at.history:
            return f"loss {mean:.4f}"
        last = at.history[-1]
        shown = f"{last['epoch']}/{self.settings.epochs}"
        return f"epoch {shown}  loss {mean:.4f}  validation {metric} {last[metric]:.4f}"
