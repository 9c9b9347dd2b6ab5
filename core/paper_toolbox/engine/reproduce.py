"""Reproduce: the run behind an ONNX file once more, from what the file tells, and the two compared."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from .. import artifact
from ..artifact import Artifact
from ..errors import ExportError, GateMissed
from ..host import Host
from ..provenance import again, changes, environment
from ..recipe import Choice, Recipe
from .compress import compress
from .inspect import read_told
from .progress import Show
from .train import train


def reproduce(path: Path, out: Path, host: Host, *, show: Show | None = None) -> dict[str, Any]:
    """Train, and compress, anew into ``out``; other weights than the file's are a ``GateMissed``, with both figures."""
    told = read_told(path)
    if not told:
        raise ExportError(f"{path} does not say how it was made: only files of `toolbox export` can be reproduced")
    changed = _changes(told)
    artifact.refuse_existing(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(told.get("threads") or threads)
    try:
        run = _again(told, out, host, show)
    finally:
        torch.set_num_threads(threads)
    report = {
        "run": str(run.folder),
        "equal": run.summary["weights_sha256"] == told["weights_sha256"],
        "weights_sha256": {"file": told["weights_sha256"], "again": run.summary["weights_sha256"]},
        "figures": {"file": told["figures"], "again": run.figures},
        "changes": changed,
    }
    if not report["equal"]:
        why = f": {'; '.join(changed)}" if changed else ""
        figures = " and ".join(f"{each[run.task.metric]:.4f}" for each in (told["figures"], run.figures))
        raise GateMissed(f"{path} is not reproduced bit for bit ({run.task.metric} {figures}){why}", report, run.folder)
    return report


def _again(told: dict[str, Any], out: Path, host: Host, show: Show | None) -> Artifact:
    """The run and each command of its chain, in folders of ``out``."""
    run = train(Recipe.from_dict(told["recipe"], "the file's recipe"), out / "train", host, show=show)
    for number, entries in itertools.groupby(told["chain"], key=lambda each: each.get("command", 0)):
        same = list(entries)
        choices = [Choice("compressor", each["name"], each["fields"]) for each in same]
        finetune = Recipe.from_dict(same[0]["finetune"]) if same[0].get("finetune") else None
        run = compress(run, choices, out / f"compress-{number}", host, finetune=finetune, show=show)
    return run


def _changes(told: dict[str, Any]) -> list[str]:
    """What is another version, code or machine than before; a method that is not installed is an error."""
    here = environment()
    machine = [f"{k} was {v} and is {here[k]}" for k, v in told["environment"].items() if here.get(k, v) != v]
    return changes(told["plugins"], again(told["plugins"])) + machine
