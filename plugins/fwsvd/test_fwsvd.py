import copy

import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.errors import DataError, NothingChanged
from paper_toolbox.kit import lowrank, surgery
from paper_toolbox.kit.persample import sample_gradients
from paper_toolbox.testing.compressor import CompressorSuite
from paper_toolbox.testing.small import build
from paper_toolbox_fwsvd import Fwsvd, Svd, fisher_rows, weighted_svd
from torch import nn


class TestFwsvd(CompressorSuite):
    method = Fwsvd(ratio=0.6)
    models = ("mlp", "cnn", "transformer")
    left = (0.4, 0.75)


class TestSvd(CompressorSuite):
    method = Svd(ratio=0.6)
    models = ("mlp", "cnn", "transformer")
    left = (0.4, 0.75)


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(9, 6, dtype=torch.float64), torch.rand(9, dtype=torch.float64) * 3


def error(w, d, rank):
    a, b = weighted_svd(w, d, rank)
    return a @ b - w


def test_equal_weights_give_plain_svd_and_full_rank_the_weight():
    w, d = problem()
    u, s, vh = torch.linalg.svd(w, full_matrices=False)
    a, b = weighted_svd(w, torch.ones(()), 3)
    torch.testing.assert_close(a @ b, (u[:, :3] * s[:3]) @ vh[:3])
    torch.testing.assert_close(torch.mm(*weighted_svd(w, d, 6)), w)
    torch.testing.assert_close(torch.mm(*weighted_svd(w, d.clamp(max=1e-8), 6)), w)


def test_the_weighted_error_is_the_least_possible_and_the_plain_one_pays():
    w, d = problem()
    discarded = torch.linalg.svdvals(d[:, None] * w)[3:].square().sum().sqrt()
    ours, plain = error(w, d, 3), error(w, torch.ones(()), 3)
    torch.testing.assert_close((d[:, None] * ours).norm(), discarded)
    assert (d[:, None] * ours).norm() < 0.97 * (d[:, None] * plain).norm()
    assert ours.norm() > plain.norm()


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_fisher_is_that_of_single_samples(name):
    small = build(name)
    model, (inputs, targets) = small.model.double(), small.batches[0]
    inputs = inputs if isinstance(inputs, dict) else inputs.double()
    layers = [layer for _, layer in lowrank.layers(model)]
    got = fisher_rows(model, layers, [(inputs, targets)], F.cross_entropy, 5)
    expected = dict.fromkeys(layers, 0)
    for i in range(5):
        one = {k: v[i : i + 1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]
        out = model(**one) if isinstance(one, dict) else model(one)
        grads = torch.autograd.grad(F.cross_entropy(out, targets[i : i + 1]), [layer.weight for layer in layers])
        for layer, g in zip(layers, grads, strict=True):
            expected[layer] = expected[layer] + g.flatten(1).square().sum(0) / 5
    for layer in layers:
        torch.testing.assert_close(got[layer], expected[layer])


def test_fisher_of_a_layer_used_twice_and_written_into():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3).double()
    model = nn.Sequential(layer, nn.ReLU(inplace=True), layer, nn.Flatten())
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    got = sample_gradients(model, [layer], x, y, F.cross_entropy)[layer]
    for i in range(4):
        (g,) = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), [layer.weight])
        torch.testing.assert_close(got[1][i].T @ got[0][i], g)


def test_inputs_that_matter_are_kept_better():
    """An input that the loss never sees costs plain SVD a singular value, and FWSVD none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 3))
    model[0].weight.data[:, 0] *= 20  # large, but its input is always zero
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    x[:, 0] = 0
    ratio, clean = 0.7, model(x)

    def harm(method, **needs):
        return (method.compress(copy.deepcopy(model), **needs)(x) - clean).norm()

    plain = harm(Svd(ratio=ratio))
    ours = harm(Fwsvd(ratio=ratio), batches=[(x, y)], loss=F.cross_entropy)
    assert ours < 0.7 * plain


def test_rank_follows_the_ratio_and_the_classifier_is_left_alone():
    model = Svd(ratio=0.33).compress(nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 10)))
    assert model[0].rank == int(0.33 * 40 * 60 / 100)
    assert isinstance(model[2], nn.Linear)
    assert sum(p.numel() for p in model[0].parameters()) - 60 <= 0.33 * 2400


@pytest.mark.parametrize("scheme", ["nc", "vh"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"padding": 1},
        {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
        {"padding": "same", "padding_mode": "reflect", "bias": False},
    ],
)
def test_full_rank_convolutions_are_the_same(scheme, geometry):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 5, (3, 2), **geometry)
    m = lowrank.matrix(layer.weight.detach(), scheme)
    torch.testing.assert_close(lowrank.unmatrix(m, layer.weight.shape, scheme), layer.weight.detach())
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    x = torch.randn(2, 4, 9, 8)
    new = lowrank.factorized(layer, u * s, vh, scheme)
    torch.testing.assert_close(new(x), layer(x), atol=1e-5, rtol=1e-4)
    again = type(new)(**surgery.arguments(new))
    again.load_state_dict(new.state_dict())
    assert torch.equal(again(x), new(x))


def test_a_transformer_of_torch_that_reads_weights_itself():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.TransformerEncoderLayer(16, 2, 64, batch_first=True), nn.Flatten(), nn.Linear(48, 3)
    ).eval()
    Svd(ratio=0.5).compress(model)
    x = torch.randn(2, 3, 16)
    slow = model(x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), slow, atol=1e-5, rtol=1e-4)


def test_refusals_are_clear():
    with pytest.raises(NothingChanged, match="fwsvd found 0 layers: it looks for linear layers and 2-D"):
        Fwsvd().compress(nn.Sequential(nn.Linear(4, 4)), batches=[], loss=F.cross_entropy)
    with pytest.raises(DataError, match="at least one batch"):
        Fwsvd().compress(build("mlp").model, batches=[], loss=F.cross_entropy)


def test_without_any_gradient_it_is_plain_svd():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))
    x, y = torch.randn(8, 20), torch.zeros(8, dtype=torch.int64)
    blind = Fwsvd().compress(copy.deepcopy(model), batches=[(x, y)], loss=lambda logits, _: 0 * logits.sum())
    torch.testing.assert_close(blind(x), Svd().compress(copy.deepcopy(model))(x))


def test_the_loss_suffers_less_than_under_plain_svd():
    """Independent inputs of very different scales, a trained classifier, unseen samples; the mean of three seeds."""
    losses = {"fwsvd": 0.0, "svd": 0.0}
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(1536, 32) * torch.logspace(-2, 0.5, 32)[torch.randperm(32)]
        y = ((x @ torch.randn(32, 24) / 32**0.5).tanh() @ torch.randn(24, 5)).argmax(1)
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
        adam = torch.optim.AdamW(model.parameters(), 3e-3)
        for step in range(240):
            part = slice(128 * (step % 8), 128 * (step % 8) + 128)
            adam.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            adam.step()
        batches = [(x[:1024], y[:1024])]
        ours = Fwsvd(ratio=0.5).compress(copy.deepcopy(model), batches=batches, loss=F.cross_entropy)
        losses["fwsvd"] += F.cross_entropy(ours(x[1024:]), y[1024:]).item() / 3
        losses["svd"] += F.cross_entropy(Svd(ratio=0.5).compress(model)(x[1024:]), y[1024:]).item() / 3
    assert losses["fwsvd"] < 0.95 * losses["svd"], losses
