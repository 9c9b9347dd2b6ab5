"""A model that was edited is rebuilt from its record and its weights alone."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from paper_toolbox.errors import ArtifactError, ModelError
from paper_toolbox.kit import surgery
from torch import Tensor, nn
from torch.nn.utils import parametrize

TRUSTED = (__name__.partition(".")[0],)
x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Doubled(nn.Module):
    """A parametrization with an argument, a parameter and a buffer of its own, which training changes."""

    calls: Tensor

    def __init__(self, factor: float = 2.0, gain: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.gain = nn.Parameter(torch.ones(())) if gain else None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.calls += 1  # a buffer that only training moves
        return weight * (self.factor if self.gain is None else self.factor * self.gain)


class Polar(nn.Module):
    """A parametrization in two tensors."""

    def forward(self, size: Tensor, direction: Tensor) -> Tensor:
        return size * direction

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        size = weight.norm(dim=1, keepdim=True)
        return size, weight / size


class Shift(nn.Module):
    """A layer that becomes another one when folded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.by = nn.Parameter(torch.randn(width))
        self.inner = Folding()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.by

    def folded(self) -> nn.Module:
        layer = nn.Linear(self.width, self.width)
        layer.load_state_dict({"weight": torch.eye(self.width), "bias": self.by.detach()})
        return layer


class Folding(nn.Module):
    """Inside a layer that folds: gone before its turn comes."""

    def folded(self) -> nn.Module:
        return nn.Identity()


class Forgetful(nn.Module):
    def __init__(self, width: int, slope: float = 0.1) -> None:
        super().__init__()
        self.width = width


class Variadic(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(widths))


class Holding(nn.Module):
    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))  # type: ignore[no-any-return]


def base() -> Any:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def edited() -> Any:
    model = base()
    surgery.parametrize(model, "0", "weight", Doubled(3.0, gain=True))
    surgery.parametrize(model, "3", "weight", Polar())
    surgery.replace(model, "1", nn.GroupNorm(2, 6, eps=1e-3))
    surgery.insert(model, "0", nn.BatchNorm1d(6, momentum=0.3))
    return model


def train_a_step(model: nn.Module, inputs: Tensor = x) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.zero_grad()
    model(inputs).square().sum().backward()
    optimizer.step()


def rebuilt(model: nn.Module, fresh: nn.Module) -> nn.Module:
    record = json.loads(json.dumps(surgery.edits(model)))
    surgery.apply_edits(fresh, record, TRUSTED)
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert surgery.edits(fresh) == record
    return fresh


def same(model: nn.Module, other: nn.Module, inputs: Tensor = x) -> None:
    for mode in (True, False):
        assert torch.equal(copy.deepcopy(model).train(mode)(inputs), copy.deepcopy(other).train(mode)(inputs))
    assert list(model.state_dict()) == list(other.state_dict())
    assert all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def test_an_edited_model_is_rebuilt_from_its_record() -> None:
    model = edited()
    train_a_step(model)
    again = rebuilt(model, base())
    same(model, again)
    assert model.state_dict()["0.0.parametrizations.weight.0.calls"] > 0
    train_a_step(model)
    train_a_step(again)
    same(model, again)


def test_a_model_of_another_dtype_stays_of_that_dtype() -> None:
    model, again = edited_double(), base().double()
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float64}
    same(model, rebuilt(model, again), x.double())


def edited_double() -> nn.Module:
    model: nn.Module = base().double()
    for edit in surgery.edits(edited()):
        surgery.apply_edits(model, [edit], TRUSTED)
    return model


def test_a_new_layer_takes_over_the_mode() -> None:
    model = base().eval()
    surgery.replace(model, "1", nn.BatchNorm1d(6))
    surgery.insert(model, "3", nn.Dropout())
    assert not any(m.training for m in model.modules())


def test_parametrizations_stack_in_order() -> None:
    model = base()
    plain = model[0].weight.detach().clone()
    surgery.parametrize(model, "0", "weight", Polar())
    surgery.parametrize(model, "0", "weight", Doubled(3.0))
    surgery.parametrize(model, "0", "bias", Doubled(5.0))
    torch.testing.assert_close(model[0].weight, 3 * plain)
    train_a_step(model)
    same(model, rebuilt(model, base()))
    before = model.eval()(x)
    torch.testing.assert_close(surgery.fold(model)(x), before)
    assert surgery.edits(model) == []


def test_folding_keeps_the_outputs_and_forgets_the_parametrizations() -> None:
    model = edited()
    surgery.insert(model, "2", Shift(6))
    train_a_step(model)
    before = model.eval()(x)
    surgery.fold(model)
    torch.testing.assert_close(model(x), before)
    assert not any(parametrize.is_parametrized(m) for m in model.modules())
    assert [e["edit"] for e in surgery.edits(model)] == ["replace", "insert", "insert", "replace"]
    assert isinstance(model[2][1], nn.Linear)
    assert not any(m.training for m in model.modules())
    same(model, rebuilt(model, base()).eval())


def test_folding_a_copy_leaves_the_original_whole() -> None:
    model = edited()
    before = model.eval()(x)
    clone = copy.deepcopy(model)
    surgery.parametrize(clone, "3", "bias", Doubled())
    surgery.fold(clone)
    assert torch.equal(model(x), before)
    assert parametrize.is_parametrized(model[3], "weight")
    assert not parametrize.is_parametrized(model[3], "bias")


def test_folding_keeps_frozen_weights_parameters() -> None:
    model = edited().requires_grad_(False)
    with torch.no_grad():
        surgery.fold(model)
    assert {n for n, _ in model.named_parameters()} >= {"0.0.weight", "3.weight"}
    assert not any(p.requires_grad for p in model.parameters())


def test_folding_a_tied_weight_unties_it_on_record() -> None:
    ids = torch.arange(7)
    model = Tied()
    surgery.parametrize(model, "head", "weight", Doubled())
    before = model.eval()(ids)
    surgery.fold(model)
    torch.testing.assert_close(model(ids), before)
    same(model, rebuilt(model, Tied()), ids)


def test_what_two_places_share_stays_shared() -> None:
    def shared() -> Any:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.Sequential(layer), nn.ReLU(), nn.Linear(4, 2))

    model = shared()
    assert [p for p, _ in surgery.find(model, nn.Linear)] == ["0", "3"]
    surgery.parametrize(model, "1.0", "weight", Doubled())
    surgery.insert(model, "0", nn.Tanh())
    assert model[0] is model[1][0]
    train_a_step(model)
    same(model, rebuilt(model, shared()))
    baked = surgery.fold(copy.deepcopy(model))
    assert [e["edit"] for e in surgery.edits(baked)] == ["insert"]
    same(baked, rebuilt(baked, shared()).eval())
    surgery.replace(model, "0.0", nn.Linear(4, 4, bias=False))
    assert model[1][0][0].bias is None
    same(model, rebuilt(model, shared()))


def test_a_model_that_is_one_layer_can_be_parametrized_but_not_replaced() -> None:
    model = nn.Linear(4, 3)
    surgery.parametrize(model, "", "weight", Doubled())
    before = model.eval()(x)
    same(model, rebuilt(model, nn.Linear(4, 3)))
    torch.testing.assert_close(surgery.fold(model)(x), before)
    for edit in (surgery.replace, surgery.insert):
        with pytest.raises(ModelError, match="put it into a container"):
            edit(model, "", nn.ReLU())
    assert surgery.edits(model) == []


def test_a_layer_changed_in_place_is_rebuilt_in_its_new_shape() -> None:
    model = base()
    layer: Any = model[3]
    layer.weight, layer.out_features = nn.Parameter(layer.weight[:2].detach()), 2
    layer.bias = None
    surgery.reshape(model, "3")
    same(model, rebuilt(model, base()))
    surgery.parametrize(model, "3", "weight", Doubled())
    with pytest.raises(ModelError, match="fold the model"):
        surgery.reshape(model, "3")


def test_find_leaves_out_what_is_inside_parametrizations() -> None:
    model = edited()
    assert surgery.find(model, Doubled) == []
    assert [p for p, _ in surgery.find(model, nn.Linear)] == ["0.0", "3"]


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (nn.Linear(2, 3, bias=False), {"in_features": 2, "out_features": 3, "bias": False}),
        (nn.LayerNorm(3), {"normalized_shape": [3], "eps": 1e-5, "elementwise_affine": True, "bias": True}),
        (Doubled(gain=True), {"factor": 2.0, "gain": True}),
        (Doubled(), {"factor": 2.0, "gain": False}),
        (nn.Identity(3), {}),
        (nn.Embedding(3, 2), None),
        (nn.Conv2d(2, 4, 3, padding="same", groups=2), None),
        (nn.ConvTranspose2d(2, 4, (1, 3), stride=2), None),
    ],
)
def test_arguments_build_an_equal_layer(layer: nn.Module, kept: dict[str, Any] | None) -> None:
    arguments = json.loads(json.dumps(surgery.arguments(layer)))
    assert kept in (None, arguments)
    assert repr(type(layer)(**arguments)) == repr(layer) or isinstance(layer, nn.Identity)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Forgetful(3), "Forgetful keeps no attribute 'slope'"),
        (Variadic(3), r"Variadic takes \*widths"),
        (nn.Sequential(nn.ReLU()), r"Sequential takes \*args"),
        (Holding(torch.ones(2)), "Holding cannot be rebuilt from a record: .*Tensor"),
        (Holding({1, 2}), "Holding cannot be rebuilt from a record: .*set"),
    ],
)
def test_a_layer_that_cannot_be_rebuilt_is_refused(layer: nn.Module, reason: str) -> None:
    model = base()
    with pytest.raises(ModelError, match=reason):
        surgery.replace(model, "1", layer)
    assert isinstance(model[1], nn.BatchNorm1d)
    assert surgery.edits(model) == []


def test_a_class_made_inside_a_function_is_refused() -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(ModelError, match="defined inside a function"):
        surgery.replace(base(), "1", Local())


def test_a_path_or_tensor_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="has no layer '7'"):
        surgery.replace(base(), "7", nn.ReLU())
    with pytest.raises(ModelError, match="has no tensor 'weight'"):
        surgery.parametrize(base(), "2", "weight", Doubled())
    with pytest.raises(ModelError, match="has no tensor 'bias'"):
        surgery.parametrize(nn.Sequential(nn.Linear(2, 2, bias=False)), "0", "bias", Doubled())


GOOD: dict[str, Any] = {"edit": "replace", "path": "2", "class": "torch.nn.modules.activation:GELU", "arguments": {}}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"class": f"{__name__}:Doubled"}, "no installed plugin provides"),
        ({"class": "os:system"}, "no installed plugin provides"),
        ({"class": "torch.nnx:Module"}, "no installed plugin provides"),
        ({"class": "torch.hub:Module"}, "no installed plugin provides"),
        ({"class": "paper_toolbox_evil:Layer"}, "no installed plugin provides"),
        ({"class": "torch.nn.functional:relu"}, "not a module class"),
        ({"class": "torch.nn.functional:torch.jit.ScriptModule"}, "not a module class"),
        ({"class": "torch.nn:Gelu"}, "cannot be repeated"),
        ({"class": "torch.nn.nowhere:Gelu"}, "cannot be repeated"),
        ({"class": 3}, "cannot be repeated"),
        ({"arguments": {"slope": 1}}, "cannot be repeated"),
        ({"path": "9.9"}, "'9.9' cannot be repeated"),
        ({"path": ""}, "cannot be repeated"),
        ({"edit": "delete"}, "no edit 'delete'"),
        ({"edit": "parametrize"}, "cannot be repeated"),
    ],
)
def test_a_record_that_cannot_be_trusted_or_repeated_is_refused(edit: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        surgery.apply_edits(base(), [GOOD | edit])
    surgery.apply_edits(base(), [GOOD])


@pytest.mark.parametrize("record", [["replace"], [{}], [None]])
def test_a_record_of_another_form_is_refused(record: list[Any]) -> None:
    with pytest.raises(ArtifactError, match="cannot be repeated"):
        surgery.apply_edits(base(), record)
