"""Train: a recipe becomes a run folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from .. import artifact
from ..artifact import Artifact
from ..errors import ArtifactError, NeedError
from ..files import locked, write_json
from ..host import Host
from ..kit import surgery
from ..models.shapes import default_model
from ..provenance import environment, provenance
from ..recipe import Recipe, Training
from .compatibility.case import Case
from .compatibility.conflicts import refuse
from .compatibility.fits import asks
from .data.open_data import Batches, Data, open_data
from .loop.fit import Fit
from .loop.keep import checkpoint_of
from .loop.observe import run_of
from .loop.restore import load_model
from .loop.shards import shared_out
from .loop.together import left_alone
from .progress import Show, Silent, shown
from .reports.pictures import learning_curve
from .setup.devices import accelerator_of, spread
from .setup.edited import edited
from .setup.methods import Methods, gather
from .setup.models import open_model, resolved_source
from .setup.objective import IGNORED, Objective
from .setup.optimize import build_optimizer, narrow
from .setup.session import Session
from .setup.unused import freeze_unused


@left_alone()
def train(
    recipe: Recipe,
    out: Path | None,
    host: Host,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    data_report: dict[str, Any] | None = None,
    show: Show | None = None,
) -> Artifact:
    """Train as ``recipe`` says into the new folder ``out``; ``resume`` continues the run that ``out`` holds.

    A run whose plugins or number of processes changed since is only continued if ``accept_changes``.
    ``data_report`` is kept beside the recipe.
    """
    if resume:
        recipe = _begun(out)
        if (out / "summary.json").exists():  # type: ignore[operator]  # there is one, or _begun had not returned
            return Artifact.load(out)  # type: ignore[arg-type]  # ditto
    accelerator = accelerator_of(recipe)
    main = accelerator.is_main_process
    if main and not resume:
        artifact.refuse_existing(out)
    session = session_of(recipe, host, accelerator)
    folder = _folder(out, session.recipe)
    if main and not resume:
        _begin(folder, session.recipe, data_report)
    fit = Fit(session, folder, (show or shown()) if main else Silent())
    with locked(folder) if main else nullcontext():
        if resume:
            fit.resume(folder, accept_changes)
        run = run_of(session.recipe, folder, resume, fit.at.step)
        with _cleared(folder, main and not resume), fit.watch.over(run, session.observers if main else ()):
            figures = fit.run()
            if main:
                _finish(folder, session, figures, fit)
    accelerator.wait_for_everyone()
    return Artifact.load(folder)


def _begin(folder: Path, recipe: Recipe, data_report: dict[str, Any] | None) -> None:
    with artifact.created(folder) as new:
        artifact.write_recipe(new, recipe)
        if data_report is not None:
            write_json(new / "data_report.json", data_report)


def _begun(out: Path | None) -> Recipe:
    """The recipe of the run in ``out``, which is to go on."""
    if out is None or not out.is_dir():
        raise ArtifactError(
            f"nothing to resume in {out}" if out else "--resume needs --out FOLDER: the run to continue"
        )
    return artifact.read_recipe(out)


@contextmanager
def _cleared(folder: Path, main: bool) -> Iterator[None]:
    """A run that fails before its first checkpoint leaves nothing in the way."""
    try:
        yield
    except BaseException:
        if main and not checkpoint_of(folder).exists():
            shutil.rmtree(folder)
        raise


def session_of(recipe: Recipe, host: Host, accelerator: Accelerator) -> Session:
    """The run, its random generators seeded and its model named in full."""
    settings = recipe.training
    set_seed(settings.seed)
    share, held_out = settings.validation, settings.validation_data
    data = open_data(settings.data, seed=settings.seed, validation=share, validation_data=held_out, host=host)
    source = resolved_source(settings.model or default_model(data.task), host)
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(settings, model=source))
    return start(recipe, host, data, None, accelerator)


def _folder(out: Path | None, recipe: Recipe) -> Path:
    """Where the run goes; the first process decides for all."""
    named = [str(out or artifact.free_name(Path("runs") / _name(recipe)))]
    return Path(broadcast_object_list(named)[0])


def start(
    recipe: Recipe, host: Host, data: Data, model: nn.Module | None, accelerator: Accelerator, *, teacher: Any = None
) -> Session:
    """Build and check everything a run needs; ``model`` None builds and edits the recipe's own."""
    settings = recipe.training
    if teacher is None and settings.teacher is not None:
        teacher = _teacher(Path(settings.teacher), data, host, accelerator.device)
    methods = gather(recipe, host, data.task, teacher=teacher is not None)
    world, rank = accelerator.num_processes, accelerator.process_index
    case = Case(recipe, methods, data.task, world, _fresh(settings.model) and model is None)
    refuse(case)
    batches = Batches(
        data.train, settings.batch_size, seed=settings.seed, device=accelerator.device, rank=rank, world=world
    )
    if model is None:
        model = _drawn(settings, methods, data, host)
    model.to(accelerator.device)
    plain = shared_out(settings, world) or case.having("forward_mode")
    if surgery.find(model, nn.Conv2d) and not plain:  # the layout that convolutions are fastest in, CPU and GPU alike
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs know tensors only
    notes = refuse(dataclasses.replace(case, model=model))
    objective = _objective(methods, data, model, teacher).to(accelerator.device)
    if world > 1 and methods.regimen is None and settings.parallel != "ddp_unused":
        freeze_unused(model, objective, data, settings)
    narrow(model, settings)
    wrapped = spread(model, accelerator, settings)
    optimizer = build_optimizer(methods.optimizer, model, objective, settings, len(batches))
    if settings.precision == "fp16":
        optimizer = accelerator.prepare_optimizer(optimizer)
    closure, scheduled = asks(methods.optimizer)
    parts = (model, wrapped, objective, optimizer, closure, accelerator, batches, methods.regimen, scheduled)
    return Session(recipe, host, data, *parts, notes=notes, observers=methods.observers)


def _drawn(settings: Training, methods: Methods, data: Data, host: Host) -> nn.Module:
    """The recipe's own model, and what its methods do to it."""
    set_seed(settings.seed)  # whatever was drawn before, for a teacher say, leaves the weights as they are
    model = open_model(settings.model or default_model(data.task), data.task, host)
    return edited(model, methods, data, settings.batch_size, settings.seed)


def _fresh(source: str | None) -> bool:
    """Whether ``source`` is an architecture whose weights are drawn; what others give may be trained already."""
    scheme, colon, _ = (source or "").partition("?")[0].partition(":")
    return not colon or scheme == "model"


def _objective(methods: Methods, data: Data, model: nn.Module, teacher: Any) -> Objective:
    padded = data.task.kind == "tokens" and bool((data.train.targets == IGNORED).any())
    return Objective(methods.losses, data.task, model, teacher, padded)


def _teacher(folder: Path, data: Data, host: Host, device: torch.device) -> nn.Module:
    teacher = Artifact.load(folder)
    if (teacher.task.kind, teacher.task.outputs) != (data.task.kind, data.task.outputs):
        raise NeedError(f"teacher {folder} gives {teacher.task.outputs} outputs, this data has {data.task.outputs}")
    return load_model(teacher, host).to(device).eval().requires_grad_(False)


def _finish(folder: Path, session: Session, figures: dict[str, Any], fit: Fit) -> None:
    """Everything but the summary first: its presence says that the rest is whole."""
    artifact.write_structure(folder, surgery.edits(session.model))
    learning_curve(fit.at.history, folder / "learning_curve.png")
    artifact.write_summary(folder, _summary(session, figures, seconds=round(fit.at.seconds, 3)))
    fit.watch.finished(fit.at.step, figures)


def _summary(session: Session, figures: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What summary.json holds for a trained model."""
    parameters = sum(p.numel() for p in session.model.parameters())
    return {
        "stage": "train",
        "task": artifact.task_to_json(session.data.task),
        "preprocessing": session.data.preprocessing,
        "figures": figures,
        "parameters": parameters,
        "plugins": provenance(session.recipe.plugins),
        "careful": [note.line for note in session.notes],
        "environment": environment(),
        "threads": torch.get_num_threads(),
        **more,
    }


def _name(recipe: Recipe) -> str:
    """``digits-cnn-adamp``, of letters that every file system takes."""
    settings = recipe.training
    words = [settings.data, settings.model or "", *(c.name for c in recipe.unobserved().plugins)]
    return "-".join(
        "".join(c if c.isalnum() or c == "_" else "-" for c in w.split("?")[0].strip("/").split("/")[-1]) for w in words
    )
