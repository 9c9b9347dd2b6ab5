"""One method of a compression: applied and fine-tuned after, each kept on disk, so that a killed one goes on."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn

from ... import artifact, needs
from ...artifact import Artifact
from ...errors import Interrupted, NothingChanged
from ...files import read_json, write_json
from ...host import Host
from ...kit import quant, surgery
from ...recipe import Choice, Recipe
from ..data.open_data import Batches, Data
from ..loop.fit import Fit
from ..loop.restore import load_model, write_calibration
from ..progress import Show, shown
from ..setup.devices import accelerator_of
from ..setup.objective import batch_loss
from ..setup.session import Session
from ..train import start
from .sizes import sizes


@dataclass(frozen=True)
class Given:
    """What the steps of one compression share; ``original`` is the model of ``run``."""

    run: Artifact
    data: Data
    original: nn.Module
    host: Host
    finetune: Recipe | None
    show: Show | None
    accept_changes: bool = False


@dataclass(frozen=True)
class Step:
    """``place`` holds the model as the method left it, ``place/tuned`` the run that fine-tunes it."""

    given: Given
    choice: Choice
    method: Any
    place: Path

    @property
    def row(self) -> dict[str, Any] | None:
        """What compress.json says of the step; None until it is done."""
        done = self.place / "done.json"
        return dict(read_json(done)) if done.exists() else None

    def model(self) -> nn.Module:
        """The model of a step that is done."""
        return self._kept(tuned=self._tunes())

    def take(self, model: nn.Module) -> nn.Module:
        """The step's model, made from ``model``, the one before it; what is on disk already is not made again."""
        if not (self.place / "structure.json").exists():
            self._keep(self._changed(model))
        tuned = self._finetune() if self._tunes() else None
        model = self.model()  # from disk, killed or not: what is not there could not come back either
        row = {"name": self.choice.name, "fields": self.choice.fields, "finetuned": tuned}
        write_json(self.place / "done.json", row | sizes(model, self.given.data))
        shutil.rmtree(self.place / "tuned" / "checkpoint", ignore_errors=True)
        return model

    def _tunes(self) -> bool:
        """Integers are planned for the file, and cannot be trained."""
        return self.given.finetune is not None and read_json(self.place / "structure.json")["quantization"] is None

    def _changed(self, model: nn.Module) -> nn.Module:
        """The method applied; a model that comes back as it was is an error."""
        given, method, name = self.given, self.method, self.choice.name
        settings = given.run.recipe.training
        set_seed(settings.seed)
        available = {
            "batches": Batches(given.data.train, settings.batch_size, seed=settings.seed),
            "loss": batch_loss(given.data.task),
            "teacher": given.original,
            "generator": torch.Generator().manual_seed(settings.seed),
        }
        before = copy.deepcopy(model.state_dict())
        edits, planned = surgery.edits(model), quant.planned(model)
        model = method.compress(model, **needs.supply(method.compress, available, name))
        after = model.state_dict()
        same = before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
        if same and surgery.edits(model) == edits and (quant.planned(model) is None) == (planned is None):
            raise NothingChanged(f"{name} left the model as it was: there was nothing it could make smaller")
        return model.eval()

    def _keep(self, model: nn.Module) -> None:
        """The structure last: its presence says that the rest is whole."""
        artifact.write_weights(self.place, model.state_dict())
        plan = quant.planned(model)
        if plan is not None:
            write_calibration(self.place, self.given.data.task, plan[1])
        artifact.write_structure(self.place, surgery.edits(model), plan[0].to_json() if plan else None)

    def _kept(self, tuned: bool) -> nn.Module:
        """Rebuilt from disk, before or after its fine-tuning."""
        run, structure = self.given.run, read_json(self.place / "structure.json")
        weights = self.place / "tuned" if tuned else self.place
        return load_model(Artifact(weights, run.recipe, run.summary, structure), self.given.host)

    def _finetune(self) -> dict[str, Any]:
        """Train as the recipe says on the run's own data, from where it stands; the figures reached."""
        own, recipe = self.given.run.recipe.training, self.given.finetune
        assert recipe is not None, "the caller has looked"
        training = dataclasses.replace(
            recipe.training,
            data=own.data,
            model=own.model,
            validation=own.validation,
            validation_data=own.validation_data,
            seed=own.seed,
        )
        session = self._session(dataclasses.replace(recipe, training=training))
        fit = Fit(session, self.place / "tuned", self.given.show or shown())
        fit.resume(self.place / "tuned", self.given.accept_changes)
        try:
            return fit.run()
        except Interrupted:
            at = f"epoch {fit.at.epoch + 1} of the fine-tuning after {self.choice.name}"
            out = self.place.parents[1]
            raise Interrupted(
                f"interrupted in {at}; saved, continue with: toolbox compress --resume --out {out}"
            ) from None
        finally:
            self.given.original.cpu()

    def _session(self, recipe: Recipe) -> Session:
        """The fine-tuning before its first step, whatever was drawn before."""
        accelerator = accelerator_of(recipe)
        teacher = self.given.original.to(accelerator.device)

        def begun() -> Session:
            model = self._kept(tuned=False).train()
            set_seed(recipe.training.seed)
            return start(recipe, self.given.host, self.given.data, model, accelerator, teacher=teacher)

        return dataclasses.replace(begun(), again=begun)
