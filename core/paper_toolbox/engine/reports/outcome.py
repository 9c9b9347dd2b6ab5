"""What a trained model answers on the validation part, sample by sample: intervals, errors, calibration."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.metrics import confusion_matrix
from torch import Tensor

from ...artifact import Artifact
from ...host import Host
from ...kit.batch import forward
from ...kit.capture import evaluating
from ..data.open_data import Batches, Data
from ..loop.evaluate import target_scale
from ..loop.restore import load_data, load_model
from ..setup.objective import IGNORED
from .interval import of_error, of_share

BINS = 10  #: of confidence
MOST = 20  #: classes that a confusion matrix shows
FREQUENT = 10  #: confusions that are told where there are more


@dataclass
class Outcome:
    """Outputs and targets, one row a sample (a position, for tokens), in the targets' own unit for regression."""

    outputs: Tensor
    targets: Tensor
    data: Data
    model: Any

    @property
    def predictions(self) -> Tensor:
        return self.outputs.argmax(1)

    @property
    def right(self) -> Tensor:
        """Of classes: whether the prediction is the target, (N,) bool."""
        return self.predictions == self.targets

    def interval(self) -> dict[str, float]:
        """The metric and 95 % of it: Wilson's for a share, the bootstrap over samples for an error."""
        if self.data.task.kind != "regression":
            return of_share(int(self.right.sum()), len(self.right))
        return of_error((self.outputs - self.targets).square().mean(1).double().numpy())

    def confusion(self) -> Any:
        """(classes, classes): rows are the targets."""
        return confusion_matrix(self.targets, self.predictions, labels=range(self.outputs.shape[1]))

    def confusions(self) -> list[tuple[str, str, int]]:
        """(true, predicted, how often) of the most frequent errors, where there are too many classes for a matrix."""
        if self.data.task.kind == "regression" or self.outputs.shape[1] <= MOST:
            return []
        names = self.data.task.classes or [str(i) for i in range(self.outputs.shape[1])]
        wrong = zip(self.targets[~self.right].tolist(), self.predictions[~self.right].tolist(), strict=True)
        return [(repr(names[a]), repr(names[b]), count) for (a, b), count in Counter(wrong).most_common(FREQUENT)]

    def calibration(self) -> list[dict[str, float]]:
        """By bin of confidence: the mean confidence, the share that is right, and how many there are."""
        confidence, right = self.outputs.softmax(1).amax(1), self.right.float()
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        kept = [i for i in range(BINS) if (bins == i).any()]
        rows = [(confidence[bins == i].mean(), right[bins == i].mean(), (bins == i).sum()) for i in kept]
        return [{"confidence": float(c), "accuracy": float(a), "count": int(n)} for c, a, n in rows]

    def calibration_error(self) -> float:
        """The mean of |confidence - accuracy|, each bin by its share (Guo et al., 2017)."""
        return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in self.calibration()) / len(
            self.right
        )


@torch.no_grad()
def outcome(run: Artifact, host: Host) -> Outcome:
    """Run the model of ``run`` over its validation part."""
    data, model = load_data(run, host), load_model(run, host)
    outputs, targets = [], []
    with evaluating(model):
        for inputs, wanted in Batches(data.validation, 256):
            outputs.append(forward(model, inputs).float())
            targets.append(wanted)
    found, wanted = torch.cat(outputs), torch.cat(targets)
    if data.task.kind == "tokens":
        found, wanted = found.flatten(0, 1), wanted.flatten()
        found, wanted = found[wanted != IGNORED], wanted[wanted != IGNORED]
    if data.task.kind == "regression":
        scale, means = target_scale(data.preprocessing), (data.preprocessing.get("targets") or {}).get("mean", [0.0])
        shift = means[0] if len(means) == 1 else 0.0  # of several targets only the distances have a unit
        found, wanted = found * scale + shift, wanted * scale + shift
    return Outcome(found, wanted, data, model)
