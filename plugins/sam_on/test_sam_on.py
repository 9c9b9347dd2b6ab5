from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import oracle_sam_on
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from paper_toolbox.errors import NeedError, ParamError
from paper_toolbox.testing.optimizer import OptimizerSuite
from paper_toolbox.testing.optimizer_oracle import Problem
from paper_toolbox.testing.oracle import Draw, fields
from paper_toolbox_sam_on import SAMON, gains_and_shifts
from torch import Tensor, nn

FORMS = list(
    itertools.product(["norm", "no_norm", "all"], ["none", "elementwise", "layerwise"], ["l2", "linf"], [True, False])
)


class OneNorm(nn.Module):
    """Holds a gain or a shift."""


def layers(params: Iterable[Tensor]) -> nn.Module:
    """Of every four tensors the first two are gain and shift of norms, the others weight and bias of a layer."""
    model = nn.Module()
    for i, p in enumerate(params):
        layer = OneNorm() if i % 4 < 2 else nn.Module()
        layer.register_parameter("bias" if i % 2 else "weight", p)  # type: ignore[arg-type]  # an nn.Parameter
        model.add_module(str(i), layer)
    return model


class TestSAMON(OptimizerSuite):
    method = SAMON(lr=0.05, momentum=0.9)
    oracle = staticmethod(oracle_sam_on.sam_on)
    oracle_of = "model"  # the norm is that of all gains and shifts together
    still = ({"rho": 0.0},)
    examples = 2
    recipe: ClassVar = {"model": "cnn?width=4&depth=2", "epochs": 3, "fields": {"rho": 0.1}}
    ranges: ClassVar = {
        "lr": st.floats(1e-3, 0.5),
        "momentum": st.floats(0.0, 0.95),
        "weight_decay": st.floats(0.0, 0.3),
        "rho": st.floats(0.01, 2.0),
        "eta": st.floats(0.0, 0.5),
    }

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Every form of the ascent, each on a problem whose gradient changes with the tensors."""
        for scope, adaptive, norm, normalize_bias in FORMS:
            form: dict[str, Any] = {"scope": scope, "adaptive": adaptive, "norm": norm}
            drawn = fields(draw, self.method, self.ranges)
            method = dataclasses.replace(drawn, **form, normalize_bias=normalize_bias)
            problem = dataclasses.replace(Problem.drawn(draw), pull=0.5)
            yield from zip(self.trajectory(problem, method, None), self.expected(problem, [method]), strict=True)

    def build(
        self, model: nn.Module, params: Iterable[Any] | None = None, engine: str = "eager"
    ) -> torch.optim.Optimizer:
        """The suite's models have no layers, and tensors of many shapes: ``layers`` says what they stand for."""
        return super().build(layers(model.parameters()), params, engine)


def net_and_batch(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = (nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 8), nn.LayerNorm(8))
    net = nn.Sequential(*hidden, nn.Linear(8, 4)).to(dtype)
    return net, torch.randn(20, 6, dtype=dtype), torch.arange(20) % 4


def step(optimizer: Any, net: nn.Module, batch: tuple[Tensor, Tensor], see: Callable[[], None] = lambda: None) -> None:
    """One step on a batch; ``see`` is called in each pass."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        see()
        return loss

    optimizer.step(closure)


def moved_in_the_second_pass(method: SAMON) -> dict[str, Tensor]:
    """Of each tensor of the net: w + ε - w."""
    net, *batch = net_and_batch()
    seen: list[dict[str, Tensor]] = []
    see = lambda: seen.append({n: p.detach().clone() for n, p in net.named_parameters()})  # noqa: E731
    step(method.build(net.parameters(), model=net), net, tuple(batch), see)  # type: ignore[arg-type]  # two tensors
    first, second = seen
    return {n: second[n] - first[n] for n in first}


IN_NORMS = {"1.weight", "1.bias", "5.weight", "5.bias"}


@pytest.mark.exact
@pytest.mark.parametrize("scope", ["norm", "no_norm", "all"])
def test_only_the_scope_climbs_and_to_the_radius(scope: Any) -> None:
    """Section 3: ‖ε‖₂ = ρ, and ε = 0 outside BatchNorm and LayerNorm."""
    e = moved_in_the_second_pass(SAMON(rho=0.3, scope=scope, lr=0.1))
    climbed = {n for n, x in e.items() if x.count_nonzero()}
    assert climbed == {"norm": IN_NORMS, "no_norm": e.keys() - IN_NORMS, "all": e.keys()}[scope]
    length = torch.linalg.vector_norm(torch.cat([x.flatten() for x in e.values()]))
    torch.testing.assert_close(length.item(), 0.3, rtol=1e-12, atol=0)


@pytest.mark.exact
@pytest.mark.parametrize("scope", ["norm", "no_norm", "all"])
def test_without_a_step_size_all_is_restored_bit_for_bit(scope: Any) -> None:
    net, *batch = net_and_batch(torch.float32)
    before = copy.deepcopy(net)
    step(SAMON(scope=scope, lr=0, rho=3.0).build(net.parameters(), model=net), net, tuple(batch))  # type: ignore[arg-type]  # two tensors
    assert all(map(torch.equal, net.parameters(), before.parameters()))


@pytest.mark.exact
def test_layerwise_asam_does_not_care_how_a_tensor_is_scaled() -> None:
    """ASAM, section 3: with T = ‖w‖ and η = 0, ε / ‖w‖ is the same after w → c w, g → g / c."""
    method = SAMON(adaptive="layerwise", eta=0.0, rho=0.7)
    w, v = (nn.Parameter(torch.randn(5, dtype=torch.float64)) for _ in range(2))
    w.grad, v.grad = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    e, f = method.ascent([w, v], set())
    w.data.mul_(8)
    w.grad.div_(8)
    torch.testing.assert_close(method.ascent([w, v], set()), [8 * e, f], rtol=1e-12, atol=0)


def test_the_norm_has_a_floor() -> None:
    """A gradient of norm 1e-16, the floor itself, climbs half as far."""
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    w.grad = torch.tensor([0.0, 1e-16], dtype=torch.float64)
    assert SAMON(rho=0.5).ascent([w], set())[0].tolist() == [0.0, 0.25]
    assert SAMON(rho=0.5, norm="linf").ascent([w], set())[0].tolist() == [0.0, 0.5]


@pytest.mark.parametrize("adaptive", ["none", "elementwise"])
def test_norms_of_halves_do_not_overflow(adaptive: Any) -> None:
    w = nn.Parameter(torch.ones(4, dtype=torch.float16))
    w.grad = torch.full_like(w, 6e4)
    assert SAMON(rho=0.5, adaptive=adaptive, eta=0.0).ascent([w], set())[0].tolist() == [0.25] * 4


class RMS2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normalized_shape, self.weight = (3,), nn.Parameter(torch.ones(3))


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class Norm2d(LlamaRMSNorm):
    pass


class PreNorm(nn.Module):
    """A block around a layer that is none of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inside = nn.GroupNorm(1, 3), nn.Linear(3, 3)


class NormedLinear(nn.Linear):
    pass


def test_norm_layers_are_known_by_type_by_name_and_by_shape() -> None:
    torchs = [nn.BatchNorm2d(3), nn.LayerNorm(3), nn.InstanceNorm1d(3, affine=True), nn.RMSNorm(3)]
    net = nn.Sequential(*torchs, RMS2d(), LlamaRMSNorm(), Norm2d(), PreNorm(), NormedLinear(3, 3), nn.BatchNorm1d(3))
    names = {"0", "1", "2", "3", "4", "5", "6", "7.norm", "9"}
    assert gains_and_shifts(net) == {p for name in names for p in net.get_submodule(name).parameters()}


@pytest.mark.parametrize("scope", ["norm", "no_norm"])
def test_a_model_without_trained_norms_is_refused(scope: Any) -> None:
    frozen = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    frozen[1].requires_grad_(False)
    for net in (nn.Linear(2, 2), frozen):
        with pytest.raises(NeedError, match=rf"SAMON.scope = '{scope}': no norm layer .*set scope=all"):
            SAMON(scope=scope).build(net.parameters(), model=net)
        SAMON(scope="all").build(net.parameters(), model=net)


def test_what_the_base_asks_for_is_passed_on() -> None:
    net = nn.LayerNorm(2)
    built: Any = SAMON(base="adamw").build(net.parameters(), model=net, engine="compiled")
    assert built.base.engine == "compiled"


def test_bases_that_do_not_fit_are_named() -> None:
    net = nn.LayerNorm(2)
    with pytest.raises(ParamError, match="its step takes a closure"):
        SAMON(base="sam_on").build(net.parameters(), model=net)
