"""What a compression was asked for: it stands in the folder until that is finished, so that a killed one goes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import artifact
from ...artifact import Artifact
from ...errors import ArtifactError
from ...files import read_json, write_json
from ...provenance import again, changes, provenance
from ...recipe import Choice, Recipe
from .before_after import Gates

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """The run that is made smaller, by what, and what the result must reach."""

    run: Artifact
    choices: tuple[Choice, ...]
    finetune: Recipe | None
    gates: Gates
    batch_size: int

    def write(self, folder: Path) -> None:
        """Into ``folder``."""
        content = {
            "format": FORMAT,
            "run": str(self.run.folder),
            "run_from_anywhere": str(self.run.folder.resolve()),
            "weights_sha256": self.run.summary["weights_sha256"],
            "plugins": Recipe(plugins=self.choices).to_dict()["plugins"],
            "finetune": self.finetune.to_dict() if self.finetune else None,
            "gates": dataclasses.asdict(self.gates),
            "batch_size": self.batch_size,
            "made_with": provenance(self.choices),
        }
        write_json(folder / artifact.PLAN, content)


def read(folder: Path, accept_changes: bool) -> Plan:
    """The plan in ``folder``; a changed run is refused, changed plugins too unless ``accept_changes``."""
    path = folder / artifact.PLAN
    if not path.is_file():
        raise ArtifactError(f"nothing to resume in {folder}: `toolbox compress RUN --out {folder}` begins one")
    content = read_json(path)
    try:
        return _plan(content, folder, accept_changes)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {type(error).__name__} {error}; remove {folder}") from error


def _plan(content: dict[str, Any], folder: Path, accept_changes: bool) -> Plan:
    if content["format"] != FORMAT:
        raise ArtifactError(f"{folder / artifact.PLAN}: format {content['format']!r} is not {FORMAT}")
    named = Path(content["run"])
    run = Artifact.load(named if named.is_dir() else Path(content["run_from_anywhere"]))
    if run.summary["weights_sha256"] != content["weights_sha256"]:
        raise ArtifactError(f"{run.folder} holds other weights than when {folder} was begun: remove {folder}")
    if (found := changes(content["made_with"], again(content["made_with"]))) and not accept_changes:
        raise ArtifactError(
            f"{folder} was begun otherwise: {'; '.join(found)}; to go on all the same, add --accept-changes"
        )
    chosen = Recipe.from_dict({"plugins": content["plugins"]}, str(folder / artifact.PLAN)).plugins
    finetune = Recipe.from_dict(content["finetune"], str(folder / artifact.PLAN)) if content["finetune"] else None
    return Plan(run, chosen, finetune, Gates(**content["gates"]), content["batch_size"])
