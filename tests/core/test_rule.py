"""The optimizer driver: groups, engines, checkpoints, and what it refuses."""

from __future__ import annotations

import copy
import importlib
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from paper_toolbox import method as method_module
from paper_toolbox import param
from paper_toolbox.errors import ModelError, ParamError, PluginError, ToolboxError
from paper_toolbox.kit import kernel
from paper_toolbox.kit.arithmetic import length
from paper_toolbox.kit.compiled import Compiled
from paper_toolbox.kit.rule import Rule, RuleOptimizer, State
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Odd(Rule):
    """Every way in which an author may write a number, a branch or a state."""

    lr: float = param(0.1, "step size", low=0)
    power: float = param(1.5, "exponent", low=0)
    betas: tuple[float, float] = param((0.9, 0.99), "decays", low=0, below=1)
    signed: bool = param(False, "take the sign")

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p), "v": torch.zeros_like(p), "top": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        (b1, b2), t, m = self.betas, state["step"], state["m"]
        m.mul_(b1).add_(grad, alpha=1 - b1)
        state["v"] = state["v"].lerp(grad**2, 1 - b2)
        state["top"] = torch.maximum(state["top"], state["v"])
        root = (state["top"] ** 0.5 / math.sqrt(1 - b2**t)).clamp(min=1e-8, max=1e3 * t)
        step = m.sign() if self.signed else m / root
        if t % 2 == 0:  # a branch on what is known without looking at a tensor
            step = step + 1e-3 * t * p
        edge = 0.1 * step.sign()
        step = torch.where(step.abs() > 0.1, edge + (step - edge) * 2 / (2 + t), step) * 2.0 ** (-t)
        p -= self.lr * step.abs() ** self.power * step.sign()


@dataclass(frozen=True, kw_only=True)
class Heavy(Rule):
    """A state that only some values of a field ask for."""

    lr: float = param(0.1, "step size", low=0)
    momentum: float = param(0.0, "share that is kept", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"v": torch.zeros_like(p)} if self.momentum else {}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        p.sub_(state["v"].mul_(self.momentum).add_(grad) if self.momentum else grad, alpha=self.lr)


@dataclass(frozen=True, kw_only=True)
class Rows(Rule):
    """Each row is divided by its own root mean square, and by the root of its length."""

    view = "rows"

    lr: float = param(0.1, "step size", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.zeros(p.shape[0], 1, dtype=p.dtype)} if p.ndim > 1 else {}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        if p.ndim > 1:
            state["mean"].lerp_(grad.square().mean(1, keepdim=True), 0.5)
            grad = grad / (state["mean"].sqrt() * length(grad, 1).sqrt() + 1e-8)
        p.sub_(grad, alpha=self.lr)


@dataclass(frozen=True, kw_only=True)
class InPlace(Rule):
    """Calls that change what they are given, a part of it, or what was made of it."""

    view = "tensor"

    lr: float = param(0.1, "step size", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {"m": torch.zeros_like(p)}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        m, size = state["m"], grad.abs().square_().sqrt_().add_(1)
        m.copy_(grad).div_(size)
        m[:1].mul_(0.5)
        m.flatten()[:1].add_(p.flatten()[:1])
        p.sub_(m.clone().neg_().neg_(), alpha=self.lr)


@dataclass(frozen=True, kw_only=True)
class Peeking(Rule):
    """What no compiler can follow: a branch on a tensor's value."""

    lr: float = param(0.1, "step size", low=0)

    def init(self, p: Tensor) -> dict[str, Tensor]:
        return {}

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        if grad.sum() > 0:
            p.sub_(grad, alpha=self.lr)


SHAPES = [(4, 3), (7,), (2, 3, 3, 2), (), (5, 1), (1, 6)]


def tensors(dtype: torch.dtype = torch.float64, shapes: list[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=draw, dtype=torch.float64).to(dtype)) for s in shapes]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int = 4) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize("rule", [Odd(), Odd(signed=True), InPlace(), pytest.param(Rows(), marks=pytest.mark.slow)])
def test_natural_formulas_give_the_same_numbers_compiled(rule: Rule) -> None:
    one, two = tensors(), tensors()
    eager, compiled = rule.build(one), rule.build(two, engine="compiled")
    torch.testing.assert_close(run(compiled, two), run(eager, one), rtol=1e-10, atol=1e-13)
    states = [[{k: x for k, x in s.items() if k != "step"} for s in o.state.values()] for o in (eager, compiled)]
    torch.testing.assert_close(states[0], states[1], rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)])
def test_engines_agree_in_every_dtype(dtype: torch.dtype, tolerance: float) -> None:
    one, two = tensors(dtype), tensors(dtype)
    left, right = run(Odd().build(one), one), run(Odd().build(two, engine="compiled"), two)
    assert all(x.dtype == dtype for x in right)
    torch.testing.assert_close(right, left, rtol=tolerance, atol=tolerance)


def test_one_graph_serves_all_sizes_and_no_number_recompiles_it() -> None:
    params = tensors(shapes=[(n, m) for n in range(2, 8) for m in (30, 5000)])
    optimizer: Any = Odd().build(params, engine="compiled")
    run(optimizer, params, 2)  # odd and even steps are two branches
    assert len(optimizer.run.codes) == 2
    made = len(kernel._kernels)
    for lr in (0.3, 0.0, 1.0):
        optimizer.param_groups[0].update(lr=lr, power=1 + lr, betas=(0.5 * lr, 0.3 * lr))
        run(optimizer, params, 2)
    assert len(kernel._kernels) == made


def test_a_schedule_is_seen_by_both_engines() -> None:
    results = []
    for engine in ("eager", "compiled"):
        params = tensors()
        optimizer = Odd().build(params, engine=engine)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        for _ in range(4):
            run(optimizer, params, 1)
            schedule.step()
        results.append([p.detach() for p in params])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-13)


def test_a_branch_on_a_value_is_the_plugins_error() -> None:
    params = tensors()
    with pytest.raises(PluginError, match=r"Peeking.update asks for a tensor's value .*torch.where"):
        run(Peeking().build(params, engine="compiled"), params)


def test_sizes_baked_into_too_many_graphs_are_the_plugins_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Baked(Peeking):
        def update(self, p: Tensor, grad: Tensor, state: State) -> None:
            p.sub_(grad.reshape(p.shape[0]))

    monkeypatch.setattr("paper_toolbox.kit.compiled.GRAPHS", 0)
    params = tensors()
    with pytest.raises(PluginError, match=r"Baked\.update has made"):
        run(Baked().build(params, engine="compiled"), params)


def test_without_a_compiler_the_error_is_clear() -> None:
    from torch._inductor import config

    class Fresh(Odd):
        def update(self, p: Tensor, grad: Tensor, state: State) -> None:
            p.sub_(grad.atan(), alpha=self.lr * 3)

    params = tensors()
    missing = config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False})
    with missing, pytest.raises(ToolboxError, match=r"cannot compile Fresh, use 'eager': .*no-such-compiler"):
        run(Fresh().build(params, engine="compiled"), params)


@pytest.mark.parametrize(
    ("state", "said"),
    [({"grad": torch.ones(3)}, r"'grad'\]: the name is taken"), ({"t": 0}, r"'t'\]: int, where only tensors are kept")],
)
def test_a_state_that_update_cannot_be_given_is_the_plugins_error(state: Any, said: str) -> None:
    class Named(Odd):
        def init(self, p: Tensor) -> dict[str, Tensor]:
            return dict(state)

    params = tensors(shapes=[(3,)])
    with pytest.raises(PluginError, match=r"Named\.init returns state\[" + said):
        run(Named().build(params), params)


def test_unknown_engines_are_refused() -> None:
    with pytest.raises(ParamError, match="must be 'auto', 'eager' or 'compiled'"):
        Odd().build(tensors(), engine="fast")  # type: ignore[arg-type]  # the point


def test_values_of_groups_are_checked_once_and_not_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    params = tensors()
    with pytest.raises(ParamError, match="lr"):
        Odd().build([{"params": params, "lr": -1.0}])
    optimizer = Odd().build([{"params": params[:2], "lr": "1e-2"}, {"params": params[2:], "betas": [0.5, 0.6]}])
    assert [g["lr"] for g in optimizer.param_groups] == [1e-2, 0.1]
    assert optimizer.param_groups[1]["betas"] == (0.5, 0.6)
    monkeypatch.setattr(
        importlib.import_module("paper_toolbox.method"), "_validate", lambda *_: pytest.fail("validated again")
    )
    run(optimizer, params)


def test_complex_parameters_are_refused() -> None:
    with pytest.raises(ModelError, match="complex64"):
        Odd().build([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])


def test_state_keeps_its_dtype_through_a_checkpoint() -> None:
    class Wide(Odd):
        def init(self, p: Tensor) -> dict[str, Tensor]:
            return {"m": torch.zeros_like(p, dtype=torch.float32)}

        def update(self, p: Tensor, grad: Tensor, state: State) -> None:
            p.sub_(state["m"].add_(grad).to(p.dtype))

    params = tensors(torch.bfloat16)
    optimizer = Wide().build(params)
    run(optimizer, params, 1)
    again = Wide().build(tensors(torch.bfloat16))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert {s["m"].dtype for s in again.state.values()} == {torch.float32}


def test_loading_keeps_what_is_compiled() -> None:
    optimizer: Any = Odd().build(tensors(), engine="compiled")
    before = optimizer.run
    optimizer.load_state_dict(optimizer.state_dict())
    assert isinstance(before, Compiled)
    assert optimizer.run is before
    assert isinstance(copy.deepcopy(optimizer), RuleOptimizer)


def test_a_closure_is_run_with_gradients_and_its_loss_returned() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = Odd().build([p])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) == 2  # type: ignore[arg-type]  # torch asks for floats
    assert not torch.equal(p, torch.ones(2))


def test_the_driver_is_what_method_returns() -> None:
    assert isinstance(method_module("adamw", "optimizer").build(tensors()), RuleOptimizer)


@pytest.mark.parametrize("engine", ["auto", "eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_a_field_that_is_zero_no_longer_gets_its_state(engine: str) -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer = method_module("sgd", "optimizer", lr=1.0).build([p], engine=engine)
    for momentum, place in ((0.0, 0.0), (0.5, -1.0), (0.5, -2.5)):
        optimizer.param_groups[0]["momentum"] = momentum
        p.grad = torch.ones(3)
        optimizer.step()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        torch.testing.assert_close(p.data, torch.full((3,), place))


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_field_that_is_switched_on_later_gets_its_state(engine: Any) -> None:
    points = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]
    optimizer = Heavy().build(points, engine=engine)
    for momentum, idle in ((0.0, False), (0.5, True), (0.5, False)):  # one has no gradient when it is switched on
        optimizer.param_groups[0]["momentum"] = momentum
        points[0].grad, points[1].grad = torch.ones(2, 3), None if idle else torch.ones(4)
        optimizer.step()
    torch.testing.assert_close(points[0].detach(), torch.full((2, 3), -0.1 * (1 + 1 + 1.5)))
    torch.testing.assert_close(points[1].detach(), torch.full((4,), -0.1 * (1 + 1)))


@dataclass(frozen=True, kw_only=True)
class Known(Heavy):
    """One that torch has a kernel for: it notes what comes to it, and leaves everything where it is."""

    def update(self, p: Tensor, grad: Tensor, state: State) -> None:
        p.sub_(grad, alpha=self.lr)

    def fused(self, params: list[Tensor], grads: list[Tensor], states: list[State], steps: list[Tensor]) -> None:
        CAME.append(([*params], [int(step) for step in steps], [state["step"] for state in states]))


CAME: list[tuple[list[Tensor], list[int], list[int]]] = []


def test_a_kernel_gets_what_it_takes_and_the_rest_steps_as_it_is_written() -> None:
    CAME.clear()
    image = torch.ones(1, 2, 3, 3).contiguous(memory_format=torch.channels_last)
    plain, late, half, far = (nn.Parameter(x) for x in (torch.ones(3), torch.ones(4), torch.ones(5).half(), image))
    optimizer = Known().build([plain, late, half, far])
    for late_too in (False, True):
        for p in (plain, half, far, late) if late_too else (plain, half, far):
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert [(*map(id, params), *steps, *counts) for params, steps, counts in CAME] == [
        (id(plain), 1, 1),
        (id(plain), 2, 2),
        (id(late), 1, 1),
    ], "alike ones together, by their own counts"
    assert all(bool((x.detach() < 1).all()) for x in (half, far))


def test_another_update_puts_the_kernel_of_its_parent_out_of_use() -> None:
    class Other(Known):
        def update(self, p: Tensor, grad: Tensor, state: State) -> None:
            p.add_(grad)

    class Same(Known):
        pass

    assert Other.fused is None
    assert Same.fused is Known.fused
    CAME.clear()
    (p,) = points = [nn.Parameter(torch.zeros(3))]
    run(Other().build(points), points, 1)
    assert not CAME
    assert p.abs().sum() > 0


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_baselines_run_on_torch_s_own_kernel(name: str) -> None:
    """Every tensor of an ordinary model goes through it."""
    rule = method_module(name, "optimizer")
    params = tensors(torch.float32)
    written = rule.build(params)

    def refuse(*_: Any) -> None:
        raise AssertionError("op by op")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(rule), "update", refuse)
        run(written, params)
