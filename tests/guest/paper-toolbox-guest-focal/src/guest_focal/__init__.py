"""Focal loss, as someone else would package it: a source folder, several modules, methods of two kinds.

Lin et al., 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002.
"""

from __future__ import annotations

from paper_toolbox import Diagnostic, Loss, hookimpl

from .methods import Focal, Hardness


@hookimpl
def loss() -> dict[str, type[Loss]]:
    return {"guest_focal": Focal}


@hookimpl
def diagnostic() -> dict[str, type[Diagnostic]]:
    return {"guest_hardness": Hardness}
