"""95 % of a metric: Wilson's interval for a share, the bootstrap over samples for an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from ...kit.batch import forward
from ...kit.capture import evaluating
from ..data.open_data import Batches, Data
from ..setup.objective import IGNORED

Interval = dict[str, float]
RESAMPLES = (199, 9999)  #: at least and at most
DRAWN = 200_000_000  #: samples drawn in all, so that it ends within seconds
AT_ONCE = 5_000_000  #: of them in memory


def of_share(hits: int, count: int) -> Interval:
    """Of ``hits`` in ``count``."""
    ends = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return {"value": hits / count, "low": float(ends.low), "high": float(ends.high)}


def of_error(squares: Any) -> Interval:
    """Of the root of the mean of ``squares``, (N,)."""
    value, count = float(np.sqrt(squares.mean())), len(squares)
    if count < 2:
        return {"value": value, "low": value, "high": value}
    low, high = RESAMPLES
    found = stats.bootstrap(
        (squares,),
        lambda x, axis=-1: np.sqrt(x.mean(axis=axis)),
        n_resamples=min(high, max(low, DRAWN // count)),
        batch=max(1, AT_ONCE // count),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {"value": value, "low": float(found.low), "high": float(found.high)}


def interval_of(model: nn.Module | Callable[..., Any], figure: float, data: Data) -> Interval:
    """Of ``figure``, the metric that ``model`` reached on the validation part; only an error needs the model for it."""
    if data.task.kind != "regression":
        count = int((data.validation.targets != IGNORED).sum())
        return {**of_share(round(figure * count), count), "value": figure}
    found = of_error(_squares(model, data))
    unit = figure / found["value"] if found["value"] else 1.0  # the targets', where the model's is another
    return {"value": figure, "low": found["low"] * unit, "high": found["high"] * unit}


@torch.no_grad()
def _squares(model: nn.Module | Callable[..., Any], data: Data) -> Any:
    """(N,): of each sample of the validation part."""
    if isinstance(model, nn.Module):
        with evaluating(model):
            return _run(model, data)
    return _run(model, data)


def _run(model: Callable[..., Any], data: Data) -> Any:
    rows = [
        (forward(model, inputs).float() - targets).square().flatten(1).mean(1)
        for inputs, targets in Batches(data.validation, 256)
    ]
    return torch.cat(rows).double().numpy()
