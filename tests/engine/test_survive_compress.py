"""Compressions that are killed: whatever the moment, they go on and end as one that was never killed."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from killing import KillAt, in_a_child
from paper_toolbox.artifact import Artifact
from paper_toolbox.engine.compress import compress, resume
from paper_toolbox.engine.compression import plan as compress_plan
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.errors import ArtifactError, Interrupted, NeedError, NothingChanged
from paper_toolbox.files import locked, sha256
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, assemble
from paper_toolbox.testing.users_run import stop_at

KILLS = 6  # of each mix: 24 in all
MIXES = [  # (compressors, how it is fine-tuned)
    (["structured_pruning", "svd"], {"plugins": ["adamp", "max_sup"]}),
    (["fwsvd"], {"plugins": ["sgd"], "weights": "bf16_master", "precision": "bf16"}),
    (["magnitude_pruning", "int8"], {"plugins": ["sam"], "accumulate": 2}),
    (["random_pruning"], {"plugins": ["lion", "label_smoothing"], "keep": "last"}),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    flags = {"data": "wine", "model": "mlp?hidden=16&depth=1&dropout=0.1", "epochs": 2, "batch_size": 32}
    chosen = assemble(Host(), None, ["adamw"], [], flags | {"device": "cpu"})
    return train(chosen, tmp_path_factory.mktemp("run") / "run", Host(), show=Silent())


def choices(names: list[str]) -> list[Choice]:
    return [Choice("compressor", name) for name in names]


def tuning(plugins: list[str], **more: Any) -> Any:
    return assemble(Host(), None, plugins, [], {"epochs": 3, "batch_size": 32, "device": "cpu"} | more)


def go_on(run: Artifact, mix: Any, out: Path, show: Callable[[], Silent]) -> Artifact:
    """Begin the compression, or continue what is there of it."""
    if out.is_dir():
        return resume(out, Host(), show=show())
    return compress(run, choices(mix[0]), out, Host(), finetune=tuning(**mix[1]), show=show())


def told(found: Artifact) -> dict[str, Any]:
    """All that a compression leaves, what was timed left out."""
    report = json.loads((found.folder / "compress.json").read_text("utf-8"))
    for row in (report["before"], report["after"]):
        del row["latency_ms"], row["onnx_bytes"]
    files = {file.name: sha256(file) for file in found.folder.iterdir() if file.suffix in (".safetensors", ".jsonl")}
    names = sorted(file.name for file in found.folder.iterdir())
    return {"report": report, "files": files, "names": names, "structure": found.structure, "summary": found.summary}


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(mix[0]))
def test_killed_at_any_moment_it_ends_the_same(mix: Any, run: Artifact, tmp_path: Path) -> None:
    draw, out, kills = random.Random("-".join(mix[0])), tmp_path / "cut", 0
    whole = told(go_on(run, mix, tmp_path / "whole", Silent))
    while kills < KILLS:  # two in its training, then whatever it does
        moment = (draw.randint(1, 6) + 6 * kills, None) if kills < 2 else (None, draw.uniform(0.01, 0.8))
        end = in_a_child(partial(go_on, run, mix, out, partial(KillAt, *moment)))
        assert end in (0, -signal.SIGKILL), "it neither ended nor was killed: it failed"
        kills += 1 if end else KILLS
    assert told(go_on(run, mix, out, Silent)) == whole
    assert not list(tmp_path.rglob("steps")), "what it worked with is gone"


@pytest.fixture
def stopped(run: Artifact, tmp_path: Path) -> Path:
    """A compression after Ctrl-C in its fine-tuning."""
    with pytest.raises(Interrupted, match=r"epoch 2 of the fine-tuning after svd; .* toolbox compress --resume --out"):
        compress(run, choices(["svd"]), tmp_path / "out", Host(), finetune=tuning(["adamp"]), show=stop_at(7))
    return tmp_path / "out"


def test_what_is_not_finished_says_how_to_go_on(stopped: Path, run: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match=r"unfinished run: finish it with `toolbox compress --resume --out "):
        Artifact.load(stopped)
    with pytest.raises(ArtifactError, match="already exists with an unfinished run"):
        compress(run, choices(["svd"]), stopped, Host())
    with locked(stopped), pytest.raises(ArtifactError, match="is in use: another process works in it"):
        resume(stopped, Host())
    known = compress_plan.again
    monkeypatch.setattr(compress_plan, "again", lambda rows: [{**row, "code_sha256": "0"} for row in known(rows)])
    changed = (
        r"begun otherwise: paper-toolbox-fwsvd 0\.1\.0 was changed since \(its code is another\); .*--accept-changes"
    )
    with pytest.raises(ArtifactError, match=changed):
        resume(stopped, Host())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NeedError, match="compress works in one process"):
        compress(run, choices(["svd"]), None, Host())


def test_one_that_fails_leaves_nothing_in_the_way(run: Artifact, tmp_path: Path) -> None:
    nothing = [Choice("compressor", "magnitude_pruning", {"sparsity": 0.0})]
    with pytest.raises(NothingChanged):
        compress(run, nothing, tmp_path / "out", Host(), show=Silent())
    assert not any(tmp_path.iterdir())
    with pytest.raises(ArtifactError, match="nothing to resume in"):
        resume(tmp_path / "out", Host())
