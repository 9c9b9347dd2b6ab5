"""What every optimizer must do; a plugin's test subclasses ``OptimizerSuite`` and names its method."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import needs
from ..kinds import Optimizer

SHAPES = {"scalar": (), "bias": (7,), "one": (1,), "matrix": (4, 3), "row": (1, 6), "column": (5, 1), "kernel": (4, 3, 3, 3)}


class Quadratic(nn.Module):
    """Parameters w of given shapes with the loss Σ |w - a|² / 2."""

    def __init__(self, *names: str, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        for name in names or SHAPES:
            point, goal = torch.randn(2, *SHAPES[name], generator=draw).to(dtype)
            self.register_parameter(name, nn.Parameter(point))
            self.register_buffer(f"{name}_goal", goal)

    def forward(self) -> Tensor:
        return sum(((p - self.get_buffer(f"{n}_goal")).square().sum() / 2 for n, p in self.named_parameters()), torch.zeros(()))


class OptimizerSuite:
    """The knobs a paper may honestly turn are the class attributes."""

    method: Optimizer
    steps = 300  #: steps allowed on the quadratic
    drop = 0.1  #: the loss must fall to this part of its start
    refuses: tuple[dict[str, Any], ...] = ({"lr": -1.0},)  #: field values that must be refused
    rtol = 1e-9  #: between the engines, in float64

    def build(self, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager") -> torch.optim.Optimizer:
        """The method over ``params`` (default: all of the model's), with whatever it may ask for."""
        given = {"model": model, "engine": engine, "steps_total": self.steps, "generator": torch.Generator().manual_seed(0)}
        asked = needs.supply(self.method.build, given)
        return self.method.build(list(model.parameters()) if params is None else params, **asked)

    def step(self, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        """One step, as the engine drives the three kinds of closure."""

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            return value

        if self.method.closure == "none":
            closure()
            optimizer.step()
        else:
            optimizer.step(closure if self.method.closure == "gradient" else loss)  # type: ignore[arg-type]  # torch asks for floats

    def run(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[Tensor]:
        """``steps`` steps from seed 0; the parameters after them."""
        torch.manual_seed(0)
        for _ in range(steps):
            self.step(optimizer, model)
        return [p.detach().clone() for p in model.parameters()]

    def test_descends_a_quadratic(self) -> None:
        model = Quadratic("matrix")
        first = model().item()
        self.run(model, self.build(model), self.steps)
        assert model().item() < self.drop * first

    def test_repeats_itself(self) -> None:
        one, two = Quadratic(), Quadratic()
        assert all(map(torch.equal, self.run(one, self.build(one)), self.run(two, self.build(two))))

    def test_resumes_bit_for_bit(self, tmp_path: Path) -> None:
        model = Quadratic()
        optimizer = self.build(model)
        self.run(model, optimizer, 3)
        saved, twin = through_safetensors(optimizer.state_dict(), tmp_path / "state.safetensors"), copy.deepcopy(model)
        again = self.build(twin)
        again.load_state_dict(saved)
        assert all(map(torch.equal, self.run(twin, again, 3), self.run(model, optimizer, 3)))

    def test_a_deep_copy_goes_its_own_way(self) -> None:
        model = Quadratic()
        optimizer = self.build(model)
        self.run(model, optimizer, 2)
        before = [p.detach().clone() for p in model.parameters()]
        twin, twins = copy.deepcopy((model, optimizer))
        moved = self.run(twin, twins, 2)
        assert all(map(torch.equal, before, model.parameters()))
        assert all(map(torch.equal, moved, self.run(model, optimizer, 2)))

    def test_leaves_tensors_without_gradient(self) -> None:
        model = Quadratic("matrix", "bias")
        model.register_parameter("idle", nn.Parameter(torch.ones(2)))
        model.bias.requires_grad_(False)
        fixed = model.bias.detach().clone()
        loss = Quadratic.forward
        optimizer = self.build(model)
        for _ in range(2):
            self.step(optimizer, lambda: loss_of(model, "matrix"))
        assert torch.equal(model.idle, torch.ones(2))
        assert torch.equal(model.bias, fixed)
