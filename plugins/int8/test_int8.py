"""Int8: the plan and its inputs are recorded; integers appear in the exported file."""

import copy
import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import oracle_int8
import pytest
import torch
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from paper_toolbox.engine.onnx.int8 import quantize
from paper_toolbox.errors import NothingChanged, ParamError
from paper_toolbox.kit.batch import size
from paper_toolbox.kit.quant import planned
from paper_toolbox.task import Task, TensorSpec
from paper_toolbox.testing.compressor import CompressorSuite
from paper_toolbox.testing.oracle import Draw, array, fields
from paper_toolbox.testing.small import build
from paper_toolbox_int8 import Int8
from torch import Tensor, nn

SHAPES = {nn.Linear: (4,), nn.Conv1d: (2, 6), nn.Conv2d: (2, 4, 4)}  # of one input
SKIP = [(), (), ("head",), ("stem",), ("*.2",), ("stem.0", "h*")]


class TestInt8(CompressorSuite):
    method = Int8(samples=8)
    models = ("mlp", "cnn", "transformer")
    left = (1.0, 1.0)  # as many parameters, of a quarter of the size
    exports = False  # test_integers_run exports through the engine, which carries the plan out
    oracle = staticmethod(oracle_int8.int8)
    ranges: ClassVar[Any] = {
        "samples": st.integers(1, 40),
        "percentile": st.sampled_from([*(51.037 + n for n in range(49)), 99.99, 100.0]),  # of few values no exact share
        "skip": st.sampled_from(SKIP),
    }
    rtol = 1e-5  # the file holds float32

    def pairs(self, draw: Draw) -> Iterator[tuple[Any, ...]]:
        """Scales, zero points and integers as they stand in the file, and what the file computes with them."""
        torch.manual_seed(draw(st.integers(0, 2**31)))
        net, x = network(draw(st.sampled_from(list(SHAPES))), draw(st.sampled_from([0.1, 1.0, 30.0])))
        method = fields(draw, self.method, self.ranges)
        if method.activations == "int8":  # which go with signed weights only
            method = replace(method, weights="int8")
        if method.calibration != "minmax":  # a histogram grows chunk by chunk; of one, nothing is lost
            method = replace(method, samples=min(method.samples, 16))
        file = quantized(method, net, x)
        expected = oracle_int8.int8(chain(net), array(x), **vars(method))
        outputs = expected.pop("outputs")
        apart = (file.pop("outputs") - torch.tensor(outputs)).abs().flatten(1).amax(1)
        tie = method.per_channel and method.weights == "uint8"  # the largest weight lies between two integers
        if method.calibration != "percentile" and not tie:  # of a few rows, one may meet such a tie on its way
            yield apart.median(), 0.0, 0.0, 1e-5 * abs(outputs).max()
        assert set(file) == set(expected)
        for name, found in expected.items():
            if not (name.endswith("bias") and found.bin):
                yield from compared(file[name], found, near=float(tie or name.endswith("bias")))

    def test_records_its_edits_and_keeps_the_shape_of_outputs(self):
        for _, small, after in self.cases():
            plan, inputs = planned(after)
            assert plan.samples == size(inputs) == 8
            assert planned(small.model) is None

    def test_copies_are_independent(self):
        for _, _, after in self.cases():
            twin = copy.deepcopy(after)
            next(iter(planned(twin)[1].values() if isinstance(planned(twin)[1], dict) else [planned(twin)[1]])).zero_()
            inputs = planned(after)[1]
            assert any(x.abs().sum() > 0 for x in (inputs.values() if isinstance(inputs, dict) else [inputs]))


def compared(ours: dict[str, Tensor], found: Any, near: float) -> Iterator[tuple[Any, ...]]:
    """S, Z and q of one tensor, q up to ``near``: those of a bias are so large that a scale in float32 moves them."""
    S, Z = ours["scale"].reshape(-1), ours["zero_point"].reshape(-1)
    yield S, np.broadcast_to(found.S, S.shape), None, 2 * found.bin / 255
    yield Z, np.broadcast_to(found.Z, Z.shape), 0.0, 3 * found.bin / np.max(found.S) + (found.bin > 0)
    if "quantized" in ours:
        yield ours["quantized"], found.q, 0.0, near


def network(kind: Any, scale: float) -> tuple[nn.Module, Tensor]:
    """Three layers of a kind with weights of some scale, each channel its own, and 44 inputs that are not centred."""
    sizes = [(4, 5), (5, 3), (3, 2)] if kind is nn.Linear else [(2, 3), (3, 3), (3, 2)]
    first, second, last = (kind(*size, *[2] * (kind is not nn.Linear)) for size in sizes)
    stem = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    for part in (first, second, last):
        part.weight.data = torch.randn_like(part.weight) * torch.rand(len(part.weight), *[1] * (part.weight.ndim - 1))
        nn.init.normal_(part.bias, 0.05, 0.02)  # a layer whose ReLU lets nothing through has no range at all
    return nn.Sequential(OrderedDict(stem=stem, head=last)), scale * (torch.randn(44, *SHAPES[kind]) + 0.3)


def chain(net: nn.Module) -> dict[str, Any]:
    """The layers as the oracle takes them."""
    return {p: (array(m.weight), array(m.bias)) for p, m in net.named_modules() if isinstance(m, tuple(SHAPES))}


def written(net: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The network in ONNX; a node is named as the export names it, a tensor by the layer that puts it out."""
    nodes: list[Any] = []
    held, last = [], "inputs"
    for path, part in net.named_modules():
        if isinstance(part, nn.ReLU):
            nodes[-1].output[0] = f"{last}.sum"
            nodes.append(helper.make_node("Relu", [f"{last}.sum"], [last], f"{path}/Relu"))
        elif isinstance(part, tuple(SHAPES)):
            given, last = [last, f"{path}.weight", f"{path}.bias"], path
            operator, options = ("Gemm", {"transB": 1}) if isinstance(part, nn.Linear) else ("Conv", {})
            nodes.append(helper.make_node(operator, given, [path], f"{path}/{operator}", **options))
            held += [numpy_helper.from_array(p.detach().numpy(), f"{path}.{n}") for n, p in part.named_parameters()]
    value, float32 = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    ends = [value("inputs", float32, ["batch", *shape])], [value(last, float32, None)]
    graph = helper.make_graph(nodes, "net", *ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def quantized(method: Int8, net: nn.Module, x: Tensor) -> dict[str, Any]:
    """By tensor, the numbers of the file that the plan becomes; and the "outputs" of that file for ``x``."""
    batches = [(part, torch.zeros(len(part))) for part in x.split(7)]
    plan = planned(method.compress(net, batches=batches))
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        onnx.save(written(net, tuple(x.shape[1:])), str(plain))
        quantize(plain, small, *plan, Task("regression", (TensorSpec("inputs", tuple(x.shape[1:])),), 2))
        return read(small, x)


def read(file: Path, x: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for held in onnx.load(str(file)).graph.initializer:
        for kind in ("quantized_zero_point", "quantized_scale", "zero_point", "scale", "quantized"):
            if held.name.endswith(f"_{kind}"):
                of = found.setdefault(held.name.removesuffix(f"_{kind}"), {})
                of[kind.removeprefix("quantized_")] = torch.tensor(numpy_helper.to_array(held)).double()
                break
    plainly = ort.SessionOptions()
    plainly.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(file), plainly, providers=["CPUExecutionProvider"])
    return found | {"outputs": torch.tensor(session.run(None, {"inputs": x.numpy()})[0]).double()}


@pytest.mark.exact
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_what_was_seen_is_kept_to_half_a_step_and_zero_is_kept_exactly(activations: Any) -> None:
    """Eq. 1 and section 2.1: |r - S (q - Z)| ≤ S/2 for each r of the range, with an integer Z for r = 0."""
    torch.manual_seed(0)
    net, x = network(nn.Conv2d, 1.0)
    file = quantized(Int8(samples=44, activations=activations), net, x)
    S, Z = file["inputs"]["scale"], file["inputs"]["zero_point"]
    low = 0 if activations == "uint8" else -128
    assert low <= Z <= low + 255
    q = ((x.double() / S).round() + Z).clamp(low, low + 255)
    assert ((x - S * (q - Z)).abs() <= S / 2 * (1 + 1e-5)).all()
    assert {q.min().item(), q.max().item()} == {low, low + 255}  # no integer is left over
    for path, (w, _) in chain(net).items():
        of = file[f"{path}.weight"]
        S = of["scale"].reshape(-1, 1, 1, 1)
        assert ((torch.tensor(w) - S * of["quantized"]).abs() <= S / 2 * (1 + 1e-5)).all()
        assert of["quantized"].flatten(1).abs().amax(1).tolist() == [127] * len(w)


@pytest.mark.exact
def test_a_bias_has_the_scale_of_the_products_that_it_is_added_to() -> None:
    """Eq. 11: S_bias = S_1 S_2 and Z_bias = 0."""
    torch.manual_seed(0)
    file = quantized(Int8(samples=9), *network(nn.Linear, 1.0))
    for before, path in (("inputs", "stem.0"), ("stem.0", "stem.2"), ("stem.2", "head")):
        products = file[before]["scale"] * file[f"{path}.weight"]["scale"]
        torch.testing.assert_close(file[f"{path}.bias"]["scale"], products, rtol=1e-6, atol=0)
        assert not file[f"{path}.bias"]["zero_point"].any()


def test_only_as_many_batches_are_read_as_needed():
    small, read = build("cnn"), []

    def batches():
        for n in range(100):
            read.append(n)
            yield small.batches[0]

    model = Int8(samples=20).compress(small.model, batches=batches())
    assert size(planned(model)[1]) == 20
    assert len(read) == 4  # batches of six


def test_the_plan_says_what_the_fields_say():
    small = build("mlp")
    method = Int8.from_options(
        {"calibration": "percentile", "percentile": "99.9", "skip": "4,0", "per_channel": "false"}
    )
    plan, _ = planned(method.compress(small.model, batches=small.batches))
    assert (plan.calibration, plan.percentile, plan.skip, plan.per_channel) == ("percentile", 99.9, ("4", "0"), False)
    assert json.loads(json.dumps(plan.to_json()))["activations"] == "uint8"


def test_a_pattern_that_names_nothing_is_refused():
    small = build("mlp")
    with pytest.raises(ParamError, match=r"int8\.skip: 'haed' is the path of no layer; there are 0, 2, 4"):
        Int8(skip=("haed",)).compress(small.model, batches=small.batches)
    with pytest.raises(NothingChanged, match="found 0 layers"):
        Int8(skip=("*",)).compress(small.model, batches=small.batches)


def test_signed_activations_go_with_signed_weights_only() -> None:
    small = build("mlp")
    with pytest.raises(ParamError, match=r"int8\.weights = uint8: no integer product"):
        Int8(activations="int8", weights="uint8").compress(small.model, batches=small.batches)


def test_integers_run(tmp_path):
    """The idea itself: without quantization the kernels are float and the file is four times as large."""
    engine = pytest.importorskip("paper_toolbox.engine.onnx.graph")
    task = pytest.importorskip("paper_toolbox.task")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)).eval()
    batches = [(torch.randn(32, 64), torch.arange(32) % 4) for _ in range(2)]
    what = task.Task("classification", (task.TensorSpec("inputs", (64,)),), 4)
    plain = engine.export_onnx(model, what, batches, tmp_path / "plain.onnx")
    model = Int8().compress(model, batches=batches)
    small = engine.export_onnx(model, what, batches, tmp_path / "small.onnx", precision="int8", tolerance=0.2)
    assert small["kernels"]["integer"] == {"QGemm": 3}
    assert small["kernels"]["float"] == engine.integer_kernels(tmp_path / "plain.onnx")["integer"] == {}
    assert small["bytes"] < plain["bytes"] / 3.5
