import copy
from math import prod

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.errors import NeedError, ParamError
from paper_toolbox.kit import surgery
from paper_toolbox.testing.compressor import CompressorSuite
from paper_toolbox.testing.small import build
from paper_toolbox_random_pruning import RandomPruning, erdos_renyi, grasp, snip
from torch import nn

RESNET20 = [(16, 3, 3, 3), *[(16, 16, 3, 3)] * 6, (32, 16, 3, 3), (32, 32, 3, 3), (32, 16, 1, 1), *[(32, 32, 3, 3)] * 4]
RESNET20 += [(64, 32, 3, 3), (64, 64, 3, 3), (64, 32, 1, 1), *[(64, 64, 3, 3)] * 4, (10, 64)]
# What the released loop gives for these shapes: stem, 16→16, 16→32, 32→32, shortcut, 32→64, 64→64, shortcut, head.
PLACES = [0, 1, 7, 8, 9, 14, 15, 16, 21]
ERK = {
    0.05: [0.47476838, 0.13530899, 0.0961406, 0.06231335, 0.80117164, 0.04539973, 0.02982139, 0.3925741, 0.94858722],
    0.2: [1.0, 0.59378759, 0.42190171, 0.27345481, 1.0, 0.19923136, 0.13086766, 1.0, 1.0],
    0.5: [1.0, 1.0, 1.0, 0.76756381, 1.0, 0.55922506, 0.36733411, 1.0, 1.0],
}
ER = {
    0.05: [0.44482563, 0.14047125, 0.10535344, 0.07023563, 0.10535344, 0.05267672, 0.03511781, 0.05267672, 0.12993591],
    0.2: [1.0, 0.5654267, 0.42407002, 0.28271335, 0.42407002, 0.21203501, 0.14135667, 0.21203501, 0.52301969],
}


class TestRandomPruning(CompressorSuite):
    method = RandomPruning(density=0.3)
    models = ("mlp", "cnn", "transformer")
    left = (0.3, 0.55)
    identity = RandomPruning(density=1)


class TestGrasp(CompressorSuite):
    method = RandomPruning(density=0.3, distribution="grasp")
    models = ("mlp", "cnn", "transformer")
    left = (0.3, 0.55)
    exports = False


@pytest.mark.parametrize(("dims", "table"), [(None, ERK), (2, ER)])
def test_densities_are_those_of_the_released_code(dims, table):
    for density, expected in table.items():
        found = erdos_renyi(RESNET20, density, dims)
        torch.testing.assert_close([found[i] for i in PLACES], expected, atol=1e-6, rtol=0)
        assert max(found) <= 1
        kept = sum(p * prod(shape) for p, shape in zip(found, RESNET20, strict=True))
        assert kept == pytest.approx(density * sum(map(prod, RESNET20)))


@pytest.mark.parametrize("distribution", ["uniform", "uniform_plus", "er", "erk", "snip", "grasp"])
def test_the_total_is_kept_and_only_there(distribution):
    small, density = build("cnn"), 0.4
    model = RandomPruning(density=density, distribution=distribution).compress(
        copy.deepcopy(small.model), batches=small.batches, loss=F.cross_entropy
    )
    layers = [m for _, m in surgery.find(model, (nn.Conv2d, nn.Linear))]
    kept = sum(int(m.weight.count_nonzero()) for m in layers)
    assert abs(kept - density * sum(m.weight.numel() for m in layers)) <= len(layers)
    before = dict(small.model.named_parameters())
    others = [n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])]
    assert all(n in others for n in before if n.endswith("bias") or "norm" in n)


def test_the_layers_of_erk_get_their_own_densities():
    model = RandomPruning(density=0.1).compress(nn.Sequential(nn.Linear(20, 200), nn.Linear(200, 10)))
    expected = erdos_renyi([(200, 20), (10, 200)], 0.1)
    found = [m.weight.count_nonzero().item() / m.weight.numel() for m in (model[0], model[1])]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert expected[1] > expected[0]


def test_positions_are_random_and_seeded():
    def mask(**fields):
        torch.manual_seed(0)
        model = RandomPruning(distribution="uniform", density=0.5, **fields).compress(nn.Sequential(nn.Linear(40, 40)))
        return model[0].parametrizations.weight[0].mask

    assert torch.equal(mask(seed=1), mask(seed=1))
    assert not torch.equal(mask(seed=1), mask(seed=2))
    assert mask().sum() == 800
    assert mask(exact=False).sum() != 800
    assert abs(mask(exact=False).sum() - 800) < 100
    rows = mask().sum(1)
    assert rows.min() > 5  # spread over the whole weight, blind to magnitudes
    assert rows.max() < 35


def test_uniform_plus_protects_the_first_and_the_last():
    layers = [m for _, m in surgery.find(build("cnn").model, (nn.Conv2d, nn.Linear))]
    found = RandomPruning(density=0.1, distribution="uniform_plus").densities(layers)
    assert found[0] == 1
    assert found[-1] == 0.2
    assert len(set(found[1:-1])) == 1
    with pytest.raises(ParamError, match="uniform_plus"):
        RandomPruning(density=0.001, distribution="uniform_plus").densities(layers)


def test_sensitivities_equal_their_definitions():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2, bias=False).double(), torch.randn(5, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0, 1])

    def gradient(w):
        w = w.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(x @ w.T / 200, y), w)[0]

    w = model.weight.detach()
    (got,) = grasp(model, [model.weight], (x, y), F.cross_entropy)
    g = gradient(w)
    hg = (gradient(w + 1e-3 * g / g.norm()) - gradient(w - 1e-3 * g / g.norm())) / 2e-3 * g.norm()
    torch.testing.assert_close(got, w * hg, rtol=1e-4, atol=0)
    (got,) = snip(model, [model.weight], (x, y), F.cross_entropy)
    loss = F.cross_entropy(model(x), y)
    torch.testing.assert_close(got, (w * torch.autograd.grad(loss, model.weight)[0]).abs())


def test_what_snip_needs_is_said():
    with pytest.raises(NeedError, match="batches and a loss"):
        RandomPruning(distribution="snip").compress(build("mlp").model)


def test_snip_leaves_model_and_random_state_alone():
    small = build("cnn")
    before, state = copy.deepcopy(small.model.state_dict()), torch.get_rng_state()
    RandomPruning(distribution="snip", density=0.999).compress(small.model, batches=small.batches, loss=F.cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(small.model[1].running_mean, before["1.running_mean"])


@pytest.mark.slow
def test_width_closes_the_gap_and_erk_beats_uniform_on_digits():
    x, y, tx, ty = digits()

    def accuracy(width, method, seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        if method is not None:
            method.compress(model)
        adam = torch.optim.Adam(model.parameters(), 5e-3)
        for _ in range(300):
            adam.zero_grad()
            F.cross_entropy(model(x), y).backward()
            adam.step()
        return (model(tx).argmax(1) == ty).float().mean().item()

    def mean(width, **fields):
        return sum(accuracy(width, RandomPruning(seed=s, **fields) if fields else None, s) for s in range(3)) / 3

    gaps = [mean(width) - mean(width, density=0.05) for width in (16, 64)]
    assert gaps[1] < gaps[0]
    assert mean(32, density=0.05) >= mean(32, density=0.05, distribution="uniform")


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1200]], y[order[:1200]], x[order[1200:]], y[order[1200:]]
