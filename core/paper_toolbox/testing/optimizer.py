"""What every optimizer must do; a plugin's test subclasses ``OptimizerSuite`` and names its method."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import ToolboxError
from ..kinds import Optimizer
from ..kit.rule import Rule
from ..kit.samples import Samples
from .declared import Declared
from .optimizer_oracle import OptimizerOracle
from .optimizer_passes import RunsPasses, built
from .whole_way import TrainsWholeWay

Start = dict[str, Tensor]
NOISE = 0.01  #: how far a sample's minimum lies from that of all


def start(dtype: torch.dtype = torch.float64) -> Start:
    """A tensor of every shape a model has, and of every layout in memory."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"scalar": (), "one": (1,), "bias": (7,), "matrix": (4, 3), "row": (1, 6), "column": (5, 1)}
    found = {n: torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for n, s in shapes.items()}
    found["kernel"] = torch.randn(4, 3, 3, 2, generator=draw, dtype=torch.float64).to(dtype)
    found["channels_last"] = found["kernel"].clone().to(memory_format=torch.channels_last)
    found["transposed"] = found["matrix"].t().clone().t()
    found["strided"] = torch.randn(4, 6, generator=draw, dtype=torch.float64).to(dtype)[:, ::2]
    return found


class Quadratic(nn.Module):
    """Σ |w - a|² / 2 over the tensors of ``points``; those named in ``unused`` stay out of the loss."""

    def __init__(self, points: Start, unused: Iterable[str] = ()) -> None:
        super().__init__()
        self.unused = set(unused)
        draw = torch.Generator().manual_seed(1)
        for name, point in points.items():
            self.register_parameter(name, nn.Parameter(point.clone()))
            goal = torch.randn(point.shape, generator=draw, dtype=torch.float64)
            self.register_buffer(f"{name}_goal", goal.to(point.dtype))

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """The loss; of ``inputs`` (B, 1) the outputs (B, P): every number of the tensors, less its goal, plus noise."""
        used = list(self._used())
        if inputs is not None:
            away = torch.cat([(p - self.get_buffer(f"{n}_goal")).flatten() for n, p in used])
            return away + NOISE * inputs.to(away.dtype)
        return torch.stack([(p - self.get_buffer(f"{n}_goal")).square().sum() / 2 for n, p in used]).sum()

    def samples(self) -> Samples:
        """The same loss as the mean of those of eight samples, of two classes, whose minima lie around it."""
        inputs = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]  # their mean is 0
        return Samples(self, [(inputs, torch.arange(8) % 2)], squares)

    def _used(self) -> Iterator[tuple[str, Tensor]]:
        return ((n, p) for n, p in self._parameters.items() if n not in self.unused and p is not None)


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared distance from the classes' centres, summed over the outputs; the mean over the samples."""
    centres = NOISE * (2 * targets.to(outputs.dtype) - 1)[:, None]
    return (outputs - centres).square().sum(1).mean() / 2


class OptimizerSuite(Declared, OptimizerOracle, RunsPasses, TrainsWholeWay):
    """The knobs a paper may honestly turn are the class attributes."""

    method: Optimizer
    steps, drop = 300, 0.1  #: after so many steps the loss on a quadratic must be this part of its start
    lr_scales = True  #: with lr = 0 a tensor stays where it is

    def build(
        self, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager"
    ) -> torch.optim.Optimizer:
        """The method over ``params`` (all of the model's), with whatever it may ask for."""
        return built(self.method, model, params, engine, self.steps)  # type: ignore[no-any-return]  # an optimizer

    def step(self, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
        """One step, with the closure that the method wants."""

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]  # torch's own signature
            return value

        if self.method.closure == "none":
            closure()
            optimizer.step()
        elif self.method.closure == "samples":
            optimizer.step(loss.samples())  # type: ignore[attr-defined]  # of a Quadratic
        else:
            optimizer.step(closure if self.method.closure == "gradient" else loss)  # type: ignore[arg-type]  # torch asks for floats

    def run(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[Tensor]:
        """``steps`` steps from seed 0; the parameters after them."""
        torch.manual_seed(0)
        for _ in range(steps):
            self.step(optimizer, model)
        return values(model)

    def test_descends_a_quadratic(self) -> None:
        model = Quadratic({"matrix": start()["matrix"]})
        first = model().item()
        self.run(model, self.build(model), self.steps)
        assert model().item() < self.drop * first

    def test_repeats_itself(self) -> None:
        one, two = Quadratic(start()), Quadratic(start())
        same(self.run(one, self.build(one)), self.run(two, self.build(two)))

    def test_resumes_bit_for_bit_from_plain_tensors_and_numbers(self, tmp_path: Path) -> None:
        model = Quadratic(start())
        optimizer = self.build(model)
        self.run(model, optimizer)
        twin = copy.deepcopy(model)
        again = self.build(twin)
        again.load_state_dict(through_files(optimizer.state_dict(), tmp_path / "state.safetensors"))
        same(self.run(twin, again), self.run(model, optimizer))

    def test_a_deep_copy_goes_its_own_way(self) -> None:
        model = Quadratic(start())
        optimizer = self.build(model)
        before = self.run(model, optimizer)
        twin, twins = copy.deepcopy((model, optimizer))
        moved = self.run(twin, twins)
        same(before, values(model))
        same(moved, self.run(model, optimizer))

    def test_leaves_what_has_no_gradient(self) -> None:
        model = Quadratic(start(), unused=["matrix"])
        model.get_parameter("bias").requires_grad_(False)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.run(model, self.build(model))
        after = dict(model.named_parameters())
        assert torch.equal(after["bias"], before["bias"])
        if self.method.closure not in ("loss", "samples"):  # an estimate from the loss alone moves every tensor
            assert torch.equal(after["matrix"], before["matrix"])

    def test_refuses_sparse_gradients(self) -> None:
        layer = nn.Embedding(4, 3, sparse=True)
        if self.method.closure in ("loss", "samples"):
            return
        with pytest.raises(ToolboxError, match="sparse"):
            self.step(self.build(layer), lambda: layer(torch.tensor([1, 2])).square().sum())

    def test_refuses_to_train_nothing(self) -> None:
        with pytest.raises(ToolboxError, match="no parameters"):
            self.build(nn.Linear(1, 1), [])

    def test_groups_and_schedules_set_the_step_size(self) -> None:
        if "lr" not in {f.name for f in dataclasses.fields(self.method)} or not self.lr_scales:
            return
        model = Quadratic({"moving": torch.ones(4), "fixed": torch.ones(4)})
        moving, fixed = model.parameters()
        optimizer = self.build(model, [{"params": [moving]}, {"params": [fixed], "lr": 0.0}])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 1))
        self.run(model, optimizer, 1)
        schedule.step()
        after = moving.detach().clone()
        assert not torch.equal(after, torch.ones(4))
        self.run(model, optimizer, 1)
        assert torch.equal(moving, after), "the schedule set lr to 0, and the tensor moved"
        assert torch.equal(fixed, torch.ones(4)), "its group has lr 0, and the tensor moved"

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_keeps_dtypes_and_stays_finite(self, dtype: torch.dtype) -> None:
        model = Quadratic(start(dtype))
        before = values(model)
        after = self.run(model, self.build(model))
        assert all(x.dtype == dtype and bool(x.isfinite().all()) for x in after)
        assert not all(map(torch.equal, before, after))

    def test_memory_layout_does_not_matter(self) -> None:
        if self.method.closure == "loss":  # random tangents are drawn in the order of memory
            return
        model, plain = Quadratic(start()), Quadratic({n: x.contiguous() for n, x in start().items()})
        torch.testing.assert_close(self.run(model, self.build(model)), self.run(plain, self.build(plain)))

    def test_engines_agree_and_share_checkpoints(self) -> None:
        if not isinstance(self.method, Rule):
            return
        from ..kit import kernel

        points = {n: start()[n] for n in ("scalar", "matrix", "bias", "kernel", "channels_last")}
        one, two = Quadratic(points), Quadratic(points)
        eager, compiled = self.build(one), self.build(two, engine="compiled")
        torch.testing.assert_close(self.run(two, compiled), self.run(one, eager), rtol=1e-9, atol=1e-12)
        compiled.load_state_dict(eager.state_dict())
        eager.load_state_dict(copy.deepcopy(compiled.state_dict()))
        for group in (*eager.param_groups, *compiled.param_groups):
            group.update({k: 0.7 * v for k, v in group.items() if isinstance(v, float)})
        made = len(kernel._kernels)
        torch.testing.assert_close(self.run(two, compiled), self.run(one, eager), rtol=1e-9, atol=1e-12)
        assert len(kernel._kernels) == made, "a number that changed made a new kernel"

    def test_small_tensors_step_together_and_large_ones_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not isinstance(self.method, Rule):
            return
        expected, model = Quadratic(start()), Quadratic(start())
        self.run(expected, self.build(expected))
        monkeypatch.setattr("paper_toolbox.kit.plan.SMALL", 10)
        monkeypatch.setattr("paper_toolbox.kit.engines.PIECE", 7)
        torch.testing.assert_close(self.run(model, self.build(model, engine="auto")), values(expected))


def values(model: nn.Module) -> list[Tensor]:
    """Copies of the parameters."""
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> None:
    """Bit for bit."""
    assert all(map(torch.equal, a, b))


def through_files(state: dict[str, Any], file: Path) -> dict[str, Any]:
    """``state_dict()`` as safetensors and JSON bring it back: whatever else it holds is refused here."""
    tensors = {f"{i}.{k}": x for i, kept in state["state"].items() for k, x in kept.items() if isinstance(x, Tensor)}
    save_file({name: x.contiguous() for name, x in tensors.items()}, file)
    rest = [[i, {k: x for k, x in kept.items() if not isinstance(x, Tensor)}] for i, kept in state["state"].items()]
    groups, kept = json.loads(json.dumps([state["param_groups"], rest]))
    states: dict[int, dict[str, Any]] = {i: dict(numbers) for i, numbers in kept}
    for name, x in load_file(file).items():
        number, _, key = name.partition(".")
        states[int(number)][key] = x
    return {"state": states, "param_groups": groups}
