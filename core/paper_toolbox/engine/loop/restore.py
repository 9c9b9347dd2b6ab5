"""Rebuild the model of a run folder: the recipe's model, the recorded edits, the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ... import artifact, catalog
from ...artifact import Artifact
from ...errors import ArtifactError
from ...files import write_tensors
from ...host import Host
from ...kit import quant, surgery
from ...kit.batch import Inputs, tensors
from ...task import Task
from ..data.open_data import Data, open_data
from ..setup.models import open_model

CALIBRATION = "calibration.safetensors"


def load_model(run: Artifact, host: Host) -> nn.Module:
    """The trained model in evaluation mode, on the CPU."""
    model = open_model(run.recipe.training.model or "", run.task, host, weights=False)
    trusted = {card.entry.module.partition(".")[0] for card in catalog.cards()}
    surgery.apply_edits(model, run.structure["edits"], trusted)
    try:
        model.load_state_dict(artifact.read_weights(run.folder))
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{run.weights} does not fit the model of {run.folder}/recipe.yaml: {why}") from None
    if (plan := run.structure.get("quantization")) is not None:
        quant.plan_int8(model, quant.QuantPlan.from_json(plan), [read_calibration(run)])
    return model.eval()


def write_calibration(folder: Path, task: Task, inputs: Inputs) -> None:
    """``calibration.safetensors``: the inputs that int8 export measures its ranges on."""
    names = [spec.name for spec in task.inputs]
    named = inputs if isinstance(inputs, Mapping) else dict(zip(names, tensors(inputs), strict=True))
    write_tensors(folder / CALIBRATION, {name: named[name].contiguous() for name in names})


def read_calibration(run: Artifact) -> Inputs:
    """What ``write_calibration`` wrote, as the run's model takes it."""
    try:
        named = load_file(run.folder / CALIBRATION)
        values = {spec.name: named[spec.name] for spec in run.task.inputs}
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtifactError(f"{run.folder / CALIBRATION} cannot be read: {error}") from error
    if run.task.layout == "dict":
        return values
    return tuple(values.values()) if run.task.layout == "tuple" else next(iter(values.values()))


def load_data(run: Artifact, host: Host, source: str | None = None) -> Data:
    """The run's own data and split, or ``source`` treated alike; then all of it is the validation part."""
    settings = run.recipe.training
    preprocessing = run.summary["preprocessing"]
    if source is None or source == settings.data:
        return open_data(
            settings.data,
            seed=settings.seed,
            validation=settings.validation,
            validation_data=settings.validation_data,
            preprocessing=preprocessing,
            host=host,
        )
    data = open_data(source, seed=settings.seed, validation=1, preprocessing=preprocessing, host=host)
    if data.task.inputs != run.task.inputs:
        shapes = [[f"{spec.name} {spec.shape} {spec.dtype}" for spec in t.inputs] for t in (run.task, data.task)]
        raise ArtifactError(f"{run.folder} was trained on {', '.join(shapes[0])}; {source} has {', '.join(shapes[1])}")
    return data
