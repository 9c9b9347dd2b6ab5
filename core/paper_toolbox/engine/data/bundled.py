"""The data sets that scikit-learn carries: at hand offline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .raw import Raw, labelled

NAMES = ("digits", "breast_cancer", "wine", "diabetes")


def read_bundled(name: str, known: Mapping[str, Any]) -> Raw:
    """A data set that scikit-learn carries, as float64."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    x = torch.from_numpy(np.ascontiguousarray(bunch.data, dtype=np.float64))
    if name == "diabetes":
        targets = torch.from_numpy(bunch.target.astype(np.float64))[:, None]
        return Raw(kind="regression", inputs={"row": x}, targets=targets, columns=list(bunch.feature_names))
    names = [str(n) for n in bunch.target_names]
    targets, classes = labelled(np.array(names)[bunch.target], known.get("classes") or names, name)
    if name == "digits":
        return Raw(kind="classification", inputs={"image": x.view(-1, 1, 8, 8)}, targets=targets, classes=classes)
    return Raw(
        kind="classification", inputs={"row": x}, targets=targets, classes=classes, columns=list(bunch.feature_names)
    )
