"""Export: parity with PyTorch, dynamic batches, precisions, provenance, and refusals that leave nothing behind."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import psutil
import pytest
import torch
import torch.nn.functional as F
from paper_toolbox.engine.onnx.graph import export_onnx, integer_kernels
from paper_toolbox.engine.onnx.parity import Differences
from paper_toolbox.engine.onnx.run import latency, read_metadata
from paper_toolbox.engine.onnx.session import feeds
from paper_toolbox.errors import ArtifactError, DataError, ExportError, GateMissed, NothingChanged, ParamError
from paper_toolbox.kit.quant import QuantPlan, plan_int8, planned, take_samples
from paper_toolbox.kit.surgery import parametrize
from paper_toolbox.task import Task, TensorSpec
from torch import Tensor, nn

IMAGES = Task("classification", (TensorSpec("image", (1, 8, 8)),), 10)
TOKENS = Task("tokens", (TensorSpec("ids", (12,), "int64", 20), TensorSpec("mask", (12,), "int64")), 20, layout="dict")
PAIRS = Task("regression", (TensorSpec("left", (4,)), TensorSpec("right", (4,))), 2, layout="tuple")


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Cnn(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.body = nn.Sequential(Residual(channels), Residual(channels))
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.stem(x))).mean((2, 3)))


class Block(nn.Module):
    """Attention and a feed-forward part, LayerNorm before each; a token class stands in front."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.mix = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.mix(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Language(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.token = nn.Embedding(20, width)
        self.place = nn.Parameter(torch.randn(12, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 20)

    def forward(self, *, mask: Tensor, ids: Tensor) -> dict[str, Tensor]:
        x = self.token(ids) + self.place
        for block in self.blocks:
            x = block(x, mask[:, None, None, :].bool())
        return {"logits": self.head(x)}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(left * right)


class Doubled(nn.Module):
    """A parametrization: the weight in use is twice the one stored."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@torch.library.custom_op("paper_toolbox_test::twist", mutates_args=())
def twist(x: Tensor) -> Tensor:
    return x * 2


@twist.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Twist(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twist(x)


class Moody(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Four(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.view(3, -1)[:, :10]


class Drift(nn.Module):
    """Not the function in a traced graph that it is in eager mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0 if torch.compiler.is_exporting() else x


def images(count: int = 90, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return list(zip(x.split(32), torch.randint(10, (count,), generator=generator).split(32), strict=True))


def tokens() -> list[tuple[dict[str, Tensor], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(20, (9, 12), generator=generator), torch.ones(9, 12, dtype=torch.int64)
    mask[:, 10:] = 0
    return [({"ids": ids, "mask": mask}, ids.masked_fill(mask == 0, -100))]


def pairs() -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    return [((torch.randn(5, 4), torch.randn(5, 4)), torch.randn(5, 2))]


def settled(model: nn.Module, batches: list) -> nn.Module:
    """Running statistics of its own data, so that outputs are of ordinary size."""
    model.train()
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)
    return model.eval()


def fitted_head(model: Cnn, batches: list) -> Cnn:
    """The model itself names the classes, far apart: answers that rounding does not change."""
    model.head.weight.data.mul_(20)
    with torch.no_grad():
        model.head.bias.data -= torch.cat([model(x) for x, _ in batches]).mean(0)
    return model


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Watches the resident memory of this process; the result gives the highest value in bytes."""
    process, seen, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: max(seen)
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return fitted_head(settled(Cnn(), images()), images())


@pytest.fixture(scope="module")
def exported(cnn, tmp_path_factory):
    out = tmp_path_factory.mktemp("fp32") / "deep" / "model.onnx"
    report = export_onnx(cnn, IMAGES, images(), out, metadata={"recipe": '{"epochs": 3}'})
    return out, report


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("tokens") / "model.onnx"
    return out, export_onnx(Language(), TOKENS, tokens(), out)


@pytest.fixture(scope="module")
def small(cnn, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8") / "model.onnx"
    model = settled(cnn, [])
    plan_int8(model, QuantPlan(), take_samples(images(seed=1), 64))
    return out, export_onnx(model, IMAGES, images(), out, precision="int8")


def test_a_residual_net_gives_the_same_numbers_at_every_batch_size(exported):
    _, report = exported
    parity = report["parity"]
    assert parity["max_abs_difference"] <= 1e-4 * max(1, parity["largest_output"])
    assert (parity["top1_agreement"], parity["answers"], parity["batch_sizes"]) == (1.0, 90, [1, 2, 7])
    assert parity["accuracy_onnx"] == parity["accuracy_torch"]


def test_the_file_says_what_it_is_for_and_where_it_comes_from(exported):
    out, report = exported
    metadata = read_metadata(out)
    assert json.loads(metadata["recipe"]) == {"epochs": 3}
    assert (metadata["precision"], json.loads(metadata["task"])["inputs"][0]["name"]) == ("fp32", "image")
    assert report["bytes"] == out.stat().st_size
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]


def test_batch_norm_is_folded_and_no_path_of_this_machine_is_inside(exported):
    out, _ = exported
    graph = onnx.load(out).graph
    assert not [n for n in graph.node if n.op_type == "BatchNormalization"]
    assert any(n.name.startswith("body.1.conv2/") or n.name.startswith("body.1.norm2/") for n in graph.node)
    assert b".py" not in out.read_bytes()
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_dictionaries_of_tokens_export_whatever_the_order_of_the_arguments(language):
    out, report = language
    graph = onnx.load(out).graph
    assert report["parity"]["max_abs_difference"] <= 1e-4
    assert report["parity"]["answers"] == 9 * 10  # masked positions do not count
    assert [value.name for value in graph.input] == ["ids", "mask"]
    assert not [n for n in graph.node if n.op_type == "Shape"], "shape arithmetic would run on the CPU beside a GPU"


def test_tuples_and_regression(tmp_path):
    report = export_onnx(Two(), PAIRS, pairs(), tmp_path / "model.onnx")
    assert report["parity"]["max_abs_difference"] <= 1e-5
    assert "top1_agreement" not in report["parity"]
    assert report["parity"]["rmse_onnx"] == pytest.approx(report["parity"]["rmse_torch"])


def test_parametrizations_become_plain_weights_and_the_model_keeps_its_own(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    parametrize(model, "1", "weight", Doubled())
    export_onnx(model, IMAGES, images(), tmp_path / "model.onnx")
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert any(np.array_equal(w, model[1].weight.detach().numpy()) for w in weights.values())
    assert hasattr(model[1], "parametrizations")


def test_fp16_computes_in_fp16_and_speaks_fp32(cnn, tmp_path):
    report = export_onnx(cnn, IMAGES, images(), tmp_path / "model.onnx", precision="fp16")
    model = onnx.load(tmp_path / "model.onnx")
    assert report["parity"]["top1_agreement"] >= 0.95
    assert report["parity"]["max_abs_difference"] > 0
    assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {onnx.TensorProto.FLOAT}
    assert onnx.TensorProto.FLOAT16 in {w.data_type for w in model.graph.initializer}


def test_int8_runs_on_integer_kernels_alone(small):
    out, report = small
    kernels = report["kernels"]
    assert kernels["integer"]["QLinearConv"] == 5
    assert (kernels["float"], kernels["unfused"]) == ({}, [])
    assert report["parity"]["top1_agreement"] >= 0.95
    assert kernels == integer_kernels(out)
    assert read_metadata(out)["precision"] == "int8"


def test_int8_is_a_third_of_the_size(small, exported):
    assert small[0].stat().st_size < exported[0].stat().st_size / 3


@pytest.mark.slow
def test_int8_is_faster_on_this_kind_of_cpu(small, exported):
    before, after = latency([exported[0], small[0]], feeds(images(32)[0][0], IMAGES), rounds=100)
    assert after["best_ms"] < before["best_ms"], (before, after)


def test_a_skipped_layer_stays_in_float(cnn, tmp_path):
    model = settled(cnn, [])
    plan_int8(model, QuantPlan(skip=("body.0", "head")), take_samples(images(seed=1), 16))
    report = export_onnx(model, IMAGES, images(), tmp_path / "model.onnx", precision="int8")
    assert report["kernels"]["integer"]["QLinearConv"] == 3
    assert sum(report["kernels"]["float"].values()) == 3


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_histogram_calibration(tmp_path, calibration):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    plan_int8(model, QuantPlan(calibration=calibration), take_samples(images(seed=1), 40))
    report = export_onnx(model, IMAGES, images(), tmp_path / "model.onnx", precision="int8", tolerance=0.3)
    assert report["kernels"]["integer"] == {"QGemm": 2}


def test_a_miss_leaves_the_earlier_file_alone(tmp_path):
    out = tmp_path / "model.onnx"
    out.write_text("earlier")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Drift())
    with pytest.raises(GateMissed, match=r"the largest difference.* is 0\.\d+, allowed 0\.0001; no file") as caught:
        export_onnx(model, IMAGES, images(), out)
    assert caught.value.report["parity"]["max_abs_difference"] == pytest.approx(1.0, abs=1e-3)
    assert out.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


def test_nan_in_one_of_the_two_is_a_miss():
    plain = Differences(torch.zeros(()), torch.zeros(()))
    plain.add(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, torch.nan]]), None)
    assert torch.isnan(plain.largest)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Twist(), r"layer body\.1 \(Twist\) .*operator paper_toolbox_test\.twist.* has no ONNX form"),
        (Moody(), r"layer body\.1 \(Moody\) .*branches on the values"),
        (Four(), r"its code fixes the batch size at 3"),
    ],
)
def test_what_does_not_export_is_named(tmp_path, capfd, layer, says):
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten())
    model.add_module("body", nn.Sequential(nn.Linear(64, 10), layer))
    with pytest.raises(ExportError, match=says) as caught:
        export_onnx(model, IMAGES, images(3), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_weights_beside_the_file(tmp_path):
    model, out = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), tmp_path / "model.onnx"
    report = export_onnx(model, IMAGES, images(), out, external=True)
    assert report["external"]
    assert (tmp_path / "model.onnx.data").stat().st_size >= 64 * 64 * 4
    assert out.stat().st_size < 64 * 64
    assert export_onnx(model, IMAGES, images(), out, precision="int8", tolerance=0.3, external=True)["external"]
    assert export_onnx(model, IMAGES, images(), out, precision="fp16", external=True)["external"]
    export_onnx(model, IMAGES, images(), out)
    assert list(tmp_path.iterdir()) == [out]


def test_opset(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    export_onnx(model, IMAGES, images(), tmp_path / "model.onnx", opset=18)
    assert {o.version for o in onnx.load(tmp_path / "model.onnx").opset_import if not o.domain} == {18}
    with pytest.raises(ExportError, match="opset 99 cannot be written"):
        export_onnx(model, IMAGES, images(), tmp_path / "other.onnx", opset=99)


def test_nothing_to_compare_on(tmp_path):
    with pytest.raises(DataError, match="its batches are empty"):
        export_onnx(nn.Flatten(), IMAGES, [], tmp_path / "model.onnx")
    with pytest.raises(ParamError, match="must be one of fp32, fp16, int8"):
        export_onnx(nn.Flatten(), IMAGES, images(), tmp_path / "model.onnx", precision="int4")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        export_onnx(nn.Flatten(), IMAGES, images(), tmp_path / "file" / "model.onnx")


def test_plans_travel_with_the_model_and_through_json():
    import copy

    model = nn.Linear(4, 4)
    wrapped = nn.Sequential(model)
    plan = QuantPlan(skip=("head*",), calibration="entropy")
    assert QuantPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    plan_int8(wrapped, QuantPlan(samples=5), take_samples([(torch.ones(3, 4), None), (torch.zeros(3, 4), None)], 5))
    kept, inputs = planned(copy.deepcopy(wrapped))
    assert (kept.samples, inputs.shape) == (5, (5, 4))
    with pytest.raises(NothingChanged, match="found 0 layers"):
        plan_int8(nn.Sequential(nn.ReLU()), QuantPlan(), [torch.ones(1, 4)])
    with pytest.raises(ParamError, match=r"'nose' is the path of no layer; there are 0"):
        plan_int8(wrapped, QuantPlan(skip=("nose",)), [torch.ones(1, 4)])
    with pytest.raises(DataError, match="at least one calibration input"):
        plan_int8(wrapped, QuantPlan(), [])


@pytest.mark.slow
@pytest.mark.parametrize("calibration", ["minmax", "percentile"])
def test_calibration_memory_does_not_grow_with_the_samples(tmp_path, calibration):
    task, model = Task("classification", (TensorSpec("image", (1, 64, 64)),), 10), Cnn(32)
    few = [(torch.randn(4, 1, 64, 64), torch.zeros(4, dtype=torch.int64))]
    peaks = []
    for count in (32, 512):
        plan_int8(model, QuantPlan(calibration=calibration), [torch.randn(count, 1, 64, 64)])
        with peak_memory() as peak:
            export_onnx(model, task, few, tmp_path / "model.onnx", precision="int8", tolerance=1)
        peaks.append(peak())
    held = 512 * 12 * 32 * 64 * 64 * 4  # what all activations of the larger set would take: 3 GB
    assert peaks[1] - peaks[0] < held / 10
