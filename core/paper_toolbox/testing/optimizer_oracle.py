"""An optimizer beside its oracle: random tensors, layouts, groups, hyper-parameters and gradients, several steps.

An oracle of one tensor is ``adam(w, gradient, steps, *, lr, betas, …) -> w``, where ``w`` is a float64 array and
``gradient(w, t)`` the gradient at ``w`` in step t = 1, 2, …. One of the whole model takes and returns a list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..kinds import Optimizer
from .oracle import LAYOUTS, Array, Draw, Oracle, array, fields, laid_out

SHAPES = [(), (1,), (7,), (4, 3), (1, 6), (5, 1), (2, 3, 3, 2), (3, 1, 2, 1)]
SCALES = [0.0, 1e-12, 1e-4, 1.0, 1.0, 1.0, 1e6]  #: of a step's gradient


@dataclass(frozen=True)
class Problem:
    """Where the tensors start, and the gradient of each: ``slopes[i][t - 1] + pull · w``."""

    starts: list[Tensor]
    slopes: list[Tensor]  # (steps, *shape) each
    pull: float

    @classmethod
    def drawn(cls, draw: Draw) -> Problem:
        """One to four tensors, one to six steps; the gradients of a step share their size, which may be 0."""
        random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4))
        scales = draw(st.lists(st.sampled_from(SCALES), min_size=1, max_size=6))
        layouts = [draw(st.sampled_from(LAYOUTS)) for _ in shapes]
        starts = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
        slopes = [torch.randn(len(scales), *s, generator=random, dtype=torch.float64) for s in shapes]
        slopes = [s * torch.tensor(scales, dtype=s.dtype).view(-1, *(1,) * (s.ndim - 1)) for s in slopes]
        starts = [laid_out(x, layout) for x, layout in zip(starts, layouts, strict=True)]
        return cls(starts, slopes, draw(st.sampled_from([0.0, 0.5])))

    @property
    def steps(self) -> int:
        return len(self.slopes[0])

    def gradient(self, number: int) -> Callable[[Array, int], Array]:
        """The gradient of tensor ``number`` as its oracle calls it."""
        slopes = self.slopes[number].numpy()
        return lambda w, t: np.asarray(slopes[t - 1] + self.pull * w)


class Slopes(nn.Module):
    """The loss Σ ⟨slope_t, w⟩ + pull |w|² / 2 of a problem; ``t`` says which step it is."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem, self.t = problem, 1
        self.points = nn.ParameterList(
            [nn.Parameter(x.clone(memory_format=torch.preserve_format)) for x in problem.starts]
        )

    def forward(self) -> Tensor:
        pull = self.problem.pull
        terms = [
            (slopes[self.t - 1] * p).sum() + pull / 2 * p.square().sum()
            for slopes, p in zip(self.problem.slopes, self.points, strict=True)
        ]
        return torch.stack(terms).sum()


class OptimizerOracle(Oracle):
    """The problems of the kind; a second parameter group has hyper-parameters of its own."""

    method: Optimizer
    oracle_of: ClassVar[Literal["tensor", "model"]] = "tensor"  #: what the oracle is given at once

    if TYPE_CHECKING:  # the suite's, whose part this is

        def build(self, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager") -> Any: ...

        def step(self, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None: ...

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        problem = Problem.drawn(draw)
        method, other = (fields(draw, self.method, self.ranges) for _ in range(2))
        several = self.oracle_of == "tensor" and draw(st.booleans())
        methods = [other if several and i % 2 else method for i in range(len(problem.starts))]
        expected = self.expected(problem, methods)
        for engine in ("eager", "auto") if getattr(method, "fused", None) else ("eager",):
            ours = self.trajectory(problem, method, other if several else None, engine)
            yield from zip(ours, expected, strict=True)

    def expected(self, problem: Problem, methods: list[Any]) -> list[Any]:
        """What the oracle makes of each tensor; ``methods[i]`` has the hyper-parameters of tensor i."""
        assert self.oracle
        starts, given = [array(x) for x in problem.starts], range(len(problem.starts))
        if self.oracle_of == "model":
            slopes = [problem.gradient(i) for i in given]

            def gradient(w: list[Array], t: int) -> list[Array]:
                return [slope(x, t) for slope, x in zip(slopes, w, strict=True)]

            return list(self.oracle(starts, gradient, problem.steps, **values(methods[0])))
        return [self.oracle(starts[i], problem.gradient(i), problem.steps, **values(methods[i])) for i in given]

    def trajectory(
        self, problem: Problem, method: Optimizer, other: Optimizer | None, engine: str = "eager"
    ) -> list[Tensor]:
        """The tensors after the problem's steps; ``other`` has the fields of every second tensor."""
        model = Slopes(problem)
        points = list(model.points)
        groups: list[Any] = [{"params": points[::2]}, {"params": points[1::2], **values(other)}] if other else points
        suite = type(self)()
        suite.method = method
        optimizer = suite.build(model, groups if len(points) > 1 else points, engine)
        for model.t in range(1, problem.steps + 1):
            suite.step(optimizer, model)
        return [p.detach() for p in points]


def values(method: Any) -> dict[str, Any]:
    """The fields by name, as they are."""
    return dict(vars(method))
