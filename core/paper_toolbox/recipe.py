"""What a run is: data, model, methods and training settings, read from a file and the command line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

import yaml

from . import catalog
from .catalog import GROUPS
from .errors import ParamError, ToolboxError
from .host import Host
from .kinds import KINDS
from .method import Settings, param

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """The settings of a run that belong to no method."""

    data: str = param("digits", "data source: a name, scheme:rest, or module:function")
    model: str | None = param(None, "model source; none takes the usual one for the data")
    epochs: int = param(10, "passes over the training part", low=1)
    batch_size: int = param(64, "samples per optimizer step and accumulation part, over all processes", low=1)
    validation: float = param(0.2, "share of the data kept for validation", above=0, below=1)
    validation_data: str | None = param(None, "data source to validate on, instead of a share of the data")
    seed: int = param(0, "of the split, the weights, the order of the data", low=0)
    schedule: Literal["constant", "linear", "cosine"] = param("cosine", "how the learning rate falls to 0 at the end")
    warmup: float = param(0.0, "share of the steps over which the learning rate rises from 0", low=0, below=1)
    groups: Mapping[str, Mapping[str, Any]] = param({}, "fields by parameter name: {'*.bias': {weight_decay: 0}}")
    clip_norm: float | None = param(None, "largest norm of the whole gradient", above=0)
    accumulate: int = param(1, "batches whose gradients make one step", low=1)
    precision: Literal["fp32", "bf16", "fp16"] = param("fp32", "of forward and backward")
    parallel: Literal["ddp", "ddp_unused", "fsdp"] = param(
        "ddp", "several processes: the model in each; where batches leave weights out; in parts (FSDP2)"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = param("auto", "auto takes a GPU where there is one")
    engine: Literal["auto", "eager", "compiled"] = param(
        "auto", "how optimizer rules run: by torch's own kernel where there is one, op by op, or compiled"
    )
    weights: Literal["fp32", "bf16_stochastic", "bf16_master"] = param(
        "fp32", "bf16: rounded at random, or with an fp32 copy in the optimizer; norms and biases stay fp32"
    )
    optimizer_state: Literal["full", "8bit"] = param("full", "what the optimizer keeps of each weight")
    offload_state: bool = param(False, "keep the optimizer's state in the CPU's memory")
    keep: Literal["best", "last"] = param("best", "which epoch's weights model.safetensors holds")
    teacher: str | None = param(None, "run folder of a trained model to learn from")


@dataclass(frozen=True)
class Choice:
    """One method of a run and the fields set for it."""

    kind: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A whole run. ``origins`` says where each value came from: flag, --set, file (default where absent)."""

    training: Training = field(default_factory=Training)
    plugins: tuple[Choice, ...] = ()
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As YAML writes it; ``Recipe.from_dict`` reads it back."""
        plugins = [{c.kind: c.name, **({"fields": c.fields} if c.fields else {})} for c in self.plugins]
        return {"format": FORMAT, **self.training.options(), "plugins": plugins}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Check and convert what a file holds; ``where`` names it in messages."""
        if not isinstance(content, Mapping):
            raise ParamError(f"{where}: must be a mapping such as 'epochs: 10', not {type(content).__name__}")
        if (found := content.get("format", FORMAT)) != FORMAT:
            raise ParamError(f"{where}: format {found!r} is not {FORMAT}: made by a newer Paper Toolbox? upgrade it")
        settings = {k: v for k, v in content.items() if k not in ("format", "plugins")}
        plugins = tuple(_choice(entry, where) for entry in content.get("plugins") or ())
        origins = dict.fromkeys([*settings, *(f"{c.name}.{f}" for c in plugins for f in c.fields)], "file")
        return cls(Training.from_options(settings, where), plugins, origins)

    def unobserved(self) -> Recipe:
        """Without its observers: all that decides what comes out."""
        return dataclasses.replace(self, plugins=tuple(c for c in self.plugins if c.kind != "observer"))

    def resolved(self, host: Host) -> Recipe:
        """Every field of every method filled in; unknown or wrong ones are refused here."""
        plugins = tuple(
            Choice(c.kind, c.name, host.build(c.name, c.kind, **c.fields).options()) if c.kind in KINDS else c
            for c in self.plugins
        )
        return dataclasses.replace(self, plugins=plugins)


def read_file(path: Path) -> Recipe:
    """The recipe in a YAML file."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ToolboxError(f"recipe {path} is missing") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ToolboxError(f"recipe {path} cannot be read: {' '.join(str(error).split())}") from error
    return Recipe.from_dict(content or {}, str(path))


def assemble(
    host: Host, base: Recipe | None, plugins: Sequence[str], assignments: Sequence[str], flags: Mapping[str, Any]
) -> Recipe:
    """The recipe of a command line: ``flags`` win over ``--set``, which wins over ``base``, over defaults."""
    base = base or Recipe()
    chosen = {(c.kind, c.name): dict(c.fields) for c in base.plugins}
    for name in plugins:
        card = host.find(name)
        chosen.setdefault((card.kind, card.name), {})
    settings, origins = base.training.options(), dict(base.origins)
    architecture: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        owner, name, value = _assignment(assignment)
        origins[f"{owner}.{name}" if owner else name] = "--set"
        if owner is None:
            settings[_setting(name)] = value
        elif any(card.name == owner and card.kind == "model" for card in catalog.cards()):
            architecture.setdefault(owner, {})[name] = value
        else:
            chosen[_owner(owner, chosen)][name] = value
    given = {name: value for name, value in flags.items() if value is not None}
    settings |= given
    origins |= dict.fromkeys(given, "flag")
    for owner, fields in architecture.items():
        settings["model"] = _with_fields(settings["model"], owner, fields)
    choices = tuple(Choice(kind, name, fields) for (kind, name), fields in chosen.items())
    return Recipe(Training.from_options(settings, "recipe"), choices, origins).resolved(host)


def explain(recipe: Recipe) -> list[tuple[str, Any, str]]:
    """(name, value, origin) of every value of a resolved recipe."""
    values = recipe.training.options()
    values["model"] = values["model"] or "the usual one for the data"
    rows = [(name, value, recipe.origins.get(name, "default")) for name, value in values.items()]
    for choice in recipe.plugins:
        for name, value in choice.fields.items():
            key = f"{choice.name}.{name}"
            rows.append((key, value, recipe.origins.get(key, "default")))
    return rows


def _choice(entry: Any, where: str) -> Choice:
    if isinstance(entry, Mapping):
        kinds = [key for key in entry if key in GROUPS]
        fields = entry.get("fields") or {}
        if len(kinds) == 1 and entry.keys() <= {kinds[0], "fields"} and isinstance(fields, Mapping):
            return Choice(kinds[0], str(entry[kinds[0]]), dict(fields))
    raise ParamError(f"{where}: plugin entry {entry!r} must look like {{optimizer: adamp, fields: {{lr: 0.001}}}}")


def _assignment(text: str) -> tuple[str | None, str, str]:
    left, equals, value = text.partition("=")
    if not equals or not left.strip():
        raise ParamError(f"--set {text!r}: write NAME.FIELD=VALUE, for example adamp.lr=3e-4")
    owner, _, name = left.strip().rpartition(".")
    return owner or None, name, value.strip()


def _with_fields(source: str | None, owner: str, fields: Mapping[str, str]) -> str:
    """``cnn`` with ``width=16`` as the source ``cnn?width=16``."""
    body, _, query = (source or owner).partition("?")
    if body != owner:
        raise ParamError(
            f"--set {owner}.{next(iter(fields))}: this run's model is {body}; name another with --model {owner}"
        )
    return f"{owner}?{urlencode(dict(parse_qsl(query)) | dict(fields))}"


def _setting(name: str) -> str:
    known = [f.name for f in dataclasses.fields(Training)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ParamError(f"--set {name}: no such setting{hint} (a method's field is written METHOD.{name})")
    return name


def _owner(owner: str, chosen: Mapping[tuple[str, str], Any]) -> tuple[str, str]:
    found = [key for key in chosen if owner in (key[1], ":".join(key))]
    if len(found) != 1:
        have = ", ".join(name for _, name in chosen) or "none"
        raise ParamError(
            f"--set {owner}.…: {owner!r} is not a method of this run (it has {have}): add --plugin {owner}"
        )
    return found[0]
