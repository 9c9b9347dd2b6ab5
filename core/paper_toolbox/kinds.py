"""The kinds of method and the one verb of each.

Keyword-only parameters of a verb are what it needs beyond its usual arguments (see ``needs``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .method import Method, param

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from .task import Task


Closure = Literal["none", "gradient", "loss", "samples"]
Trait = Literal[
    "above_zero", "apart", "classes", "differences", "fixed_length", "forward_mode", "fresh", "gradient_scale",
    "jacobian", "least_loss", "low_rank", "mapped", "masks", "no_forward", "no_second", "norm_layers", "own_weights",
    "pairs", "plain_weights", "private", "pulls_length", "second_order", "smallest", "splits", "trained",
    "weight_scale", "writes",
]  # fmt: skip

TRAITS: Mapping[Trait, str] = {
    "above_zero": "its least value is not 0",
    "apart": "takes the samples one by one: in the model they must not see each other",
    "classes": "takes one class per sample",
    "differences": "looks at small differences of the loss",
    "fixed_length": "holds the length of weights",
    "forward_mode": "carries derivatives forward: in plain layouts, through operations that have such a derivative",
    "fresh": "suits a fresh model as well as a trained one",
    "gradient_scale": "sets the length of the gradient, or of the step, itself",
    "jacobian": "takes the Jacobian of the outputs",
    "least_loss": "computes its step size from the least value that it takes the loss to have",
    "low_rank": "splits layers into factors of low rank",
    "mapped": "maps over single samples: a forward pass must write nothing",
    "masks": "holds weights at zero",
    "no_forward": "has no derivative in forward mode",
    "no_second": "has no second derivative",
    "norm_layers": "puts its norm layers where the model has others",
    "own_weights": "goes on from weights of its own: changes of the model's between steps are lost",
    "pairs": "compares the samples of a batch with each other",
    "plain_weights": "trains the first layer's weight itself: nothing may parametrize it",
    "private": "hides every single sample of the training part",
    "pulls_length": "draws the length of weights to a value, in the place of weight decay",
    "second_order": "differentiates the loss twice",
    "smallest": "trains the smallest weights alone",
    "splits": "keeps a weight as several tensors: nothing else may parametrize it before",
    "trained": "is meant for a model that is trained already",
    "weight_scale": "sets the scale of the weights: of the trained tensors only the direction counts",
    "writes": "writes to its buffers in every forward pass of a training",
}


@dataclass(frozen=True, kw_only=True)
class Part(Method, ABC):
    """A part of a training run. ``traits`` says what only the paper knows of it and others must reckon with.

    What the fields, the verb's needs and the attributes of a kind say already is no trait.
    """

    traits: ClassVar[tuple[Trait, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class Optimizer(Part, ABC):
    """Turns gradients into steps.

    ``closure`` says what ``step`` must be given: nothing; a function that zeroes the gradients, runs forward and
    backward and returns the loss (``gradient``); one that only computes the loss, no backward (``loss``); or
    ``kit.samples.Samples``, which also shows the samples behind it (``samples``). ``scheduled`` says that the method
    sets its step size over the run itself; the run's own schedule is then left out.
    """

    closure: ClassVar[Closure] = "none"
    scheduled: ClassVar[bool] = False

    @abstractmethod
    def build(self, params: Iterable[Any], *args: Any, **needs: Any) -> torch.optim.Optimizer:
        """The optimizer over ``params``: tensors or torch parameter groups, whose keys override the fields."""


@dataclass(frozen=True, kw_only=True)
class Normalizer(Part, ABC):
    """Puts a normalization or a re-parameterization into a model."""

    @abstractmethod
    def apply(self, model: nn.Module, *args: Any, **needs: Any) -> nn.Module:
        """Edit ``model`` through ``kit.surgery`` and return it; nothing to edit is ``NothingChanged``."""


@dataclass(frozen=True, kw_only=True)
class Loss(Part, ABC):
    """Scores predictions: a ``criterion`` (one per run) or a ``penalty`` (any number, added).

    ``tasks`` names the kinds of task whose outputs the loss understands.
    """

    role: ClassVar[Literal["criterion", "penalty"]] = "criterion"
    tasks: ClassVar[tuple[str, ...]] = ("classification", "tokens")

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor, *args: Any, **needs: Any) -> Tensor:
        """A scalar, mean over the batch. logits (N, C), targets (N,) int64; regression: both (N, D)."""

    def build(self, task: Task) -> nn.Module | None:
        """A stateful loss returns the module whose ``forward`` then stands in for ``__call__``; it is trained along."""
        return None


@dataclass(frozen=True, kw_only=True)
class Compressor(Part, ABC):
    """Makes a trained model smaller or faster."""

    @abstractmethod
    def compress(self, model: nn.Module, *args: Any, **needs: Any) -> nn.Module:
        """Edit ``model`` through ``kit.surgery`` and return it; nothing to edit is ``NothingChanged``."""


@dataclass(frozen=True, kw_only=True)
class Attributor(Method, ABC):
    """Says how much each input entry mattered."""

    @abstractmethod
    def attribute(self, model: nn.Module, inputs: Tensor, targets: Tensor, *args: Any, **needs: Any) -> Tensor:
        """inputs (B, ...), targets (B,) int64: the output looked at -> attributions (B, ...), like the inputs.

        Pixel maps may have one channel: (B, 1, H, W). The model is in evaluation mode and stays unchanged.
        """


@dataclass(frozen=True, kw_only=True)
class Regimen(Part, ABC):
    """A way to train that no single optimizer, loss or normalizer can say."""

    @abstractmethod
    def train(self, run: Any, *args: Any, **needs: Any) -> None:
        """One epoch: train ``run.model`` with ``run.optimizer``, ``run.batches``, ``run.loss`` and ``run.backward``."""


@dataclass(frozen=True, kw_only=True)
class Model(Method, ABC):
    """An architecture."""

    @abstractmethod
    def build(self, task: Task, *args: Any, **needs: Any) -> nn.Module:
        """A freshly initialised model for ``task``; a task it cannot serve is a ``ModelError``."""


@dataclass(frozen=True, kw_only=True)
class Diagnostic(Method, ABC):
    """Measures a model."""

    @abstractmethod
    def measure(self, model: nn.Module, batches: Iterable[Any], *args: Any, **needs: Any) -> dict[str, Any]:
        """Figures by name, as JSON can write them; the model stays unchanged."""


@dataclass(frozen=True, kw_only=True)
class Solver(Method, ABC):
    """Solves a problem given as arrays."""

    @abstractmethod
    def solve(self, problem: Any, *args: Any, **needs: Any) -> Any:
        """The solution of ``problem``."""


@dataclass(frozen=True)
class Run:
    """What an observer is told as a run begins or, ``resumed``, goes on."""

    folder: Path  #: the run's own; what an observer writes belongs into it, or beside it
    settings: Mapping[str, Any] = field(default_factory=dict)  #: every value of the run, by its name behind ``--set``
    resumed: bool = False
    step: int = 0  #: optimizer steps done before; rows on record of later steps are to be dropped: they come again


Record = Callable[[int, Mapping[str, float]], None]  #: takes a row: the step, and figures by name


@dataclass(frozen=True, kw_only=True)
class Observer(Method, ABC):
    """Watches a run and keeps what it sees; the run stays as it would be without it."""

    every: int = param(1, "steps from one row of training figures to the next; evaluations are all kept", low=1)

    @abstractmethod
    def watch(self, run: Run, *args: Any, **needs: Any) -> AbstractContextManager[Record]:
        """Open what is written to, give the function that takes the rows, close; a generator does all three.

        After a step a row has ``epoch``, ``batch_loss``, ``lr`` (of the first parameter group) and ``seconds``; at the
        end of an epoch the figures of metrics.jsonl; at the very end, by names with ``kept_``, those of the weights
        kept. Who waits at ``yield`` receives the exception that ends a run early. Only the main process observes.
        """


PREFIX = "paper_toolbox."  #: of the entry-point groups: the kind follows

KINDS: dict[str, type[Method]] = {
    "optimizer": Optimizer,
    "normalizer": Normalizer,
    "loss": Loss,
    "compressor": Compressor,
    "attributor": Attributor,
    "regimen": Regimen,
    "model": Model,
    "diagnostic": Diagnostic,
    "solver": Solver,
    "observer": Observer,
}

VERBS: dict[str, str] = {
    "optimizer": "build",
    "normalizer": "apply",
    "loss": "__call__",
    "compressor": "compress",
    "attributor": "attribute",
    "regimen": "train",
    "model": "build",
    "diagnostic": "measure",
    "solver": "solve",
    "observer": "watch",
}
