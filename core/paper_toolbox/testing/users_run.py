"""A suite's method as users run it: by the name that announces it, its fields as text, the engine on real data."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .. import catalog, needs
from ..errors import PluginError
from ..host import Host
from ..kinds import KINDS, Loss, Optimizer
from ..task import Task, TensorSpec

if TYPE_CHECKING:  # the engine takes seconds to import: only the tests that go the whole way wait for it
    from ..artifact import Artifact
    from ..catalog import Card
    from ..recipe import Choice, Recipe

PLAIN: Mapping[str, Any] = {"epochs": 10, "batch_size": 16, "device": "cpu", "keep": "last"}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "images": {"data": "digits", "model": "cnn?width=8&depth=2", "epochs": 3, "batch_size": 32},
    "classification": {"data": "wine", "model": "mlp?hidden=16"},
    "regression": {"data": "diabetes", "model": "mlp?hidden=16"},
    "tokens": {"data": "text:text.txt?length=16", "model": "gpt?width=16&depth=1&heads=2"},
}
TEXT = "the quick brown fox jumps over the lazy dog. " * 60
NO_SETTINGS = ("plugins", "sets", "fields")


def announced(method: Any) -> Card:
    """The card that announces the class of ``method``, installed or staged."""
    cls, host = type(method), Host()
    for card in catalog.cards():
        own = card.entry.module.partition(".")[0] == cls.__module__.partition(".")[0]
        if own and card.kind in KINDS and isinstance(method, KINDS[card.kind]) and host.method_of(card) is cls:
            return card
    raise PluginError(f"no installed package announces {cls.__name__} of {cls.__module__}: install the plugin first")


def choice_of(suite: Any) -> Choice:
    """The method with the fields of the suite's, or of its ``recipe`` where that names them."""
    from ..recipe import Choice

    card, usual = announced(suite.method), type(suite.method)().options()
    fields = suite.method.options() | dict(suite.recipe.get("fields", {}))
    return Choice(card.kind, card.name, {k: v for k, v in fields.items() if v != usual[k]})


def settings_of(suite: Any, folder: Path) -> dict[str, Any]:
    """Small data and a small model for the task that the suite is about, and what its ``recipe`` says instead."""
    settings = {**PLAIN, **SMALL[_task_of(suite)], **{k: v for k, v in suite.recipe.items() if k not in NO_SETTINGS}}
    if "text.txt" in settings["data"]:
        (folder / "text.txt").write_text(TEXT, "utf-8")
        settings["data"] = settings["data"].replace("text.txt", str(folder / "text.txt"))
    return settings


def recipe_of(suite: Any, folder: Path) -> Recipe:
    """What a command line that names the method would train; ``folder`` takes a text or a teacher it needs."""
    choice, settings = choice_of(suite), settings_of(suite, folder)
    name, fields = f"{choice.kind}:{choice.name}", {k: _text(v) for k, v in choice.fields.items()}
    if choice.kind == "model":
        return _assembled(suite, settings | {"model": f"{choice.name}?{urlencode(fields)}"})
    if isinstance(suite.method, Loss) and _wants_teacher(suite.method):
        settings["teacher"] = str(plain(suite, folder).folder)
    return _assembled(suite, settings, [name], [f"{name}.{field}={value}" for field, value in fields.items()])


def trained(suite: Any, folder: Path) -> Artifact:
    """A run with the method."""
    from ..engine.progress import Silent
    from ..engine.train import train

    return train(recipe_of(suite, folder), folder / "run", Host(), show=Silent())


def plain(suite: Any, folder: Path) -> Artifact:
    """A run of the same settings without the method."""
    from ..engine.progress import Silent
    from ..engine.train import train

    return train(_assembled(suite, settings_of(suite, folder)), folder / "plain", Host(), show=Silent())


def compressed(suite: Any, run: Artifact, folder: Path) -> Artifact:
    """``run`` made smaller by the method, then trained for another epoch where integers are not planned."""
    from ..engine.compress import compress
    from ..engine.progress import Silent

    again = _assembled(suite, dict(run.recipe.training.options()) | {"epochs": 1})
    return compress(run, [choice_of(suite)], folder, Host(), finetune=again, show=Silent())


def check_export(run: Artifact, file: Path) -> None:
    """The exported model answers as PyTorch does, and in ONNX Runtime reaches the figure that the run recorded."""
    from ..engine.export import export
    from ..engine.run import run as run_onnx

    report, metric = export(run, file, Host()), run.task.metric
    if report["precision"] == "fp32":
        assert report["parity"]["gap"] <= 1e-4
        assert report["parity"].get("top1_agreement", 1.0) == 1.0
    found = run_onnx(file, Host(), provider="cpu")[metric]
    assert abs(found - run.figures[metric]) <= 1e-4 * abs(found), f"{metric} {found}, recorded {run.figures[metric]}"


def skill(run: Artifact) -> float:
    """How far the run's figure is from guessing (0), on the way to perfect (1)."""
    from ..engine.loop.evaluate import target_scale
    from ..engine.loop.restore import load_data
    from ..engine.setup.objective import IGNORED

    targets, found = load_data(run, Host()).validation.targets, run.figures[run.task.metric]
    if run.task.kind == "regression":
        scale = target_scale(run.summary["preprocessing"]) * targets.std(correction=0).item()
        return float(1 - found / scale)
    guess = targets[targets != IGNORED].bincount().max().item() / int((targets != IGNORED).sum())
    return float((found - guess) / (1 - guess))


def told(run: Artifact) -> list[dict[str, Any]]:
    """The figures of every epoch, times left out."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history()]


def one_process_only(method: Any) -> bool:
    """Whether the method says that several processes cannot share its work."""
    if isinstance(method, Loss):
        return method.build(Task("classification", (TensorSpec("x", (6,)),), 5)) is not None
    return isinstance(method, Optimizer) and method.closure in ("loss", "samples")


def stop_at(step: int) -> Any:
    """A display that presses Ctrl-C once ``step`` steps are done."""
    from ..engine.progress import Silent

    class Stop(Silent):
        def advance(self, done: int, text: Callable[[], str]) -> None:
            if done == step:
                signal.raise_signal(signal.SIGINT)

    return Stop()


def _assembled(suite: Any, settings: dict[str, Any], names: Sequence[str] = (), sets: Sequence[str] = ()) -> Recipe:
    from ..recipe import assemble

    names, sets = [*names, *suite.recipe.get("plugins", ())], [*sets, *suite.recipe.get("sets", ())]
    return assemble(Host(), None, names, sets, settings)


def _task_of(suite: Any) -> str:
    if tasks := getattr(suite, "tasks", ()):  # of an architecture
        return "images" if len(tasks[0].inputs[0].shape) == 3 else str(tasks[0].kind)
    if not isinstance(suite.method, Loss):
        return "images"
    kind = suite.kind or suite.method.tasks[0]
    return "images" if kind == "classification" else str(kind)


def _wants_teacher(loss: Any) -> bool:
    return any(must and need.startswith("teacher") for need, must in needs.of(loss.__call__).items())


def _text(value: Any) -> str:
    """As one types it behind ``--set``."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
