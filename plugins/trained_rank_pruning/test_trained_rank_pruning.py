import copy

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.errors import DataError, NothingChanged
from paper_toolbox.kit import lowrank, surgery
from paper_toolbox.testing.compressor import CompressorSuite
from paper_toolbox.testing.parity import outputs
from paper_toolbox.testing.small import build
from paper_toolbox_trained_rank_pruning import TrainedRankPruning, targets
from torch import nn


class TestTrainedRankPruning(CompressorSuite):
    method = TrainedRankPruning(energy=0.7, epochs=2, period=2)
    models = ("cnn",)
    left = (0.2, 0.9)


class TestSpatialAndLinear(CompressorSuite):
    method = TrainedRankPruning(energy=0.6, epochs=2, period=2, scheme="vh", linear=True)
    models = ("mlp", "cnn", "transformer")
    left = (0.2, 0.95)
    exports = False


def decaying(scheme="nc"):
    """A convolution whose singular values fall."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 8, 3)
    u, s, vh = torch.linalg.svd(lowrank.matrix(layer.weight.detach(), scheme), full_matrices=False)
    s = s[0] * 0.6 ** torch.arange(len(s))
    layer.weight.data = lowrank.unmatrix((u * s) @ vh, layer.weight.shape, scheme).contiguous()
    return layer, s


@pytest.mark.parametrize("scheme", ["nc", "vh"])
def test_a_projection_has_the_least_rank_that_keeps_the_energy(scheme):
    layer, s = decaying(scheme)
    before = lowrank.matrix(layer.weight.detach().clone(), scheme)
    method = TrainedRankPruning(energy=0.95, scheme=scheme)
    u, kept, vh = method.project(layer)
    after, k = lowrank.matrix(layer.weight.detach(), scheme), len(kept)
    assert torch.linalg.matrix_rank(after, rtol=1e-4) == k
    lost = ((after - before).norm() / before.norm()) ** 2
    assert lost <= 0.05
    assert s[: k - 1].square().sum() < 0.95 * s.square().sum()
    torch.testing.assert_close((u * kept) @ vh, after)


def test_the_sub_gradient_is_that_of_the_nuclear_norm():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 5, 3).double()
    push = TrainedRankPruning(energy=1.0).push(layer)
    (expected,) = torch.autograd.grad(torch.linalg.matrix_norm(layer.weight.flatten(1), "nuc"), layer.weight)
    torch.testing.assert_close(push, expected)


def projected_and_split(model, method):
    """The model after its last projection, and the model that is split there."""
    dense, split = copy.deepcopy(model), copy.deepcopy(model)
    for _, layer in targets(dense):
        method.project(layer, method.value_threshold)
    return dense, method.split(split, targets(split))


@pytest.mark.parametrize("scheme", ["nc", "vh"])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_splitting_costs_nothing_after_the_last_projection(scheme, threshold):
    small = build("cnn")
    method = TrainedRankPruning(energy=0.7, scheme=scheme, value_threshold=threshold)
    dense, split = projected_and_split(small.model, method)
    assert any(isinstance(m, lowrank.LowRankConv2d) for m in split.modules())
    x = small.batches[0][0]
    torch.testing.assert_close(outputs(split, x), outputs(dense, x), atol=1e-4, rtol=1e-4)


def test_projections_come_every_period_and_push_the_gradient_only_then():
    class Counting(TrainedRankPruning):
        def push(self, layer):
            calls.append(layer)
            return super().push(layer)

    calls: list[nn.Module] = []
    small = build("cnn")
    Counting(energy=0.7, epochs=5, period=4).compress(small.model, batches=small.batches, loss=F.cross_entropy)
    assert len(calls) == 4 * 3  # four layers, at steps 0, 4 and 8 of ten


def test_the_sub_gradient_lowers_the_nuclear_norm():
    def norm(lam):
        small = build("cnn")
        layers = targets(small.model)
        method = TrainedRankPruning(energy=1.0, epochs=5, period=1, lam=lam, weight_decay=0)
        method.train(small.model, layers, small.batches, F.cross_entropy)
        return sum(torch.linalg.matrix_norm(layer.weight.flatten(1), "nuc").item() for _, layer in layers)

    assert norm(0.1) < 0.97 * norm(0.0)


def test_targets_are_large_convolutions_behind_the_first():
    model = build("cnn").model
    assert [p for p, _ in targets(model)] == ["3.conv1", "3.conv2", "4.conv1", "4.conv2"]
    assert [p for p, _ in targets(build("mlp").model, linear=True)] == ["0", "2"]


def test_refusals_are_clear():
    small = build("mlp")
    with pytest.raises(NothingChanged, match="found 0 layers: it looks for convolutions larger than 1×1"):
        TrainedRankPruning().compress(small.model, batches=small.batches, loss=F.cross_entropy)
    small = build("cnn")
    full = TrainedRankPruning(energy=1.0, epochs=0, value_threshold=0)
    with pytest.raises(NothingChanged, match=r"split 0 layers: their ranks are too high \(3\.conv1 16"):
        full.compress(small.model, batches=[], loss=F.cross_entropy)
    with pytest.raises(DataError, match="batches of training data"):
        TrainedRankPruning().compress(build("cnn").model, batches=[], loss=F.cross_entropy)


def test_a_parametrized_layer_is_made_plain_first():
    small = build("cnn")
    nn.utils.parametrizations.weight_norm(small.model[3].conv1)
    method = TrainedRankPruning(energy=0.7, epochs=1)
    model = method.compress(small.model, batches=small.batches, loss=F.cross_entropy)
    assert isinstance(model[3].conv1, lowrank.LowRankConv2d)
    assert surgery.edits(model)


@pytest.mark.slow
def test_accuracy_survives_the_split_where_plain_svd_loses_it_on_digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    batches, tx, ty = list(zip(x[:1280].split(64), y[:1280].split(64), strict=True)), x[1280:], y[1280:]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    for before, after in ((16, 32), (32, 32), (32, 32)):
        model.extend(nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()))
    model.extend(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)))

    def accuracy(m):
        return (outputs(m, tx).argmax(1) == ty).float().mean().item()

    plain = TrainedRankPruning(energy=1.0, lam=0, epochs=12, lr=0.05, period=10**6)
    plain.train(model.train(), targets(model), batches, F.cross_entropy)
    dense = accuracy(model)
    trained = TrainedRankPruning(energy=0.9, lam=3e-3, epochs=12, lr=0.05, period=5, value_threshold=0.4)
    ours = trained.compress(copy.deepcopy(model), batches=batches, loss=F.cross_entropy)
    ranks = {p: m.rank for p, m in ours.named_modules() if isinstance(m, lowrank.LowRankConv2d)}
    svd = copy.deepcopy(model)
    for path, rank in ranks.items():
        layer = svd.get_submodule(path)
        u, s, vh = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
        surgery.replace(svd, path, lowrank.factorized(layer, u[:, :rank] * s[:rank], vh[:rank]))
    macs = [sum(p.numel() for p in m.parameters() if p.ndim == 4) for m in (model, ours)]
    print(dense, accuracy(ours), accuracy(svd), macs, ranks)
    assert macs[0] / macs[1] > 2
    assert accuracy(ours) > accuracy(svd) + 0.05
    assert accuracy(ours) > dense - 0.05
