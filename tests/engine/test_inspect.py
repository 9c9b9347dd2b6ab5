"""What ``inspect`` makes of a file: layers of fused nodes, pairs that did not fuse, intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from paper_toolbox.engine.inspect import inspect
from paper_toolbox.engine.onnx.layers import Layers
from paper_toolbox.engine.reports.interval import interval_of, of_error, of_share
from paper_toolbox.errors import ExportError


def file(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> Path:
    """A model of one float input ``x`` of ``shape`` and one output ``y``."""
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    return path


def convolution(name: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node("Conv", inputs, [output], name=name, pads=[1, 1, 1, 1])


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)


def test_a_fused_node_is_told_as_its_layer(tmp_path: Path, weight: np.ndarray) -> None:
    nodes = [
        convolution("body.0/conv2d", ["x", "body.0.weight"], "c"),
        helper.make_node("Relu", ["c"], ["r"], name="body.1/relu"),
        convolution("body.2/conv2d", ["r", "body.2.weight"], "d"),
        helper.make_node("Relu", ["d"], ["y"], name="body.3/relu"),
    ]
    weights = {"body.0.weight": weight, "body.2.weight": weight}
    found = inspect(file(tmp_path / "m.onnx", nodes, weights, ["n", 8, 8, 8]), "cpu")
    executed = [node for node in found["nodes"] if node["operator"].endswith("Conv")]
    assert [node["layer"] for node in executed] == ["body.0", "body.2"]
    assert {row["layer"] for row in found["layers"]} >= {"body.0", "body.2"}
    assert sum(row["us"] for row in found["layers"]) == pytest.approx(sum(node["us"] for node in found["nodes"]))
    assert (found["told"], found["export"], found["integers"]) == ({}, None, None)


def test_a_pair_that_does_not_fuse_is_named_with_its_layer(tmp_path: Path, weight: np.ndarray) -> None:
    """Quantized in front, but not behind: ONNX Runtime has no kernel from integers to float."""
    scales = {"s": np.float32(0.1), "z": np.uint8(128), "ws": np.float32(0.1), "wz": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="x_QuantizeLinear"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="x_DequantizeLinear"),
        helper.make_node("DequantizeLinear", ["head.weight_q", "ws", "wz"], ["w"], name="head.weight_DequantizeLinear"),
        convolution("head/conv2d", ["d", "w"], "y"),
    ]
    weights = {"head.weight_q": (weight * 10).astype(np.int8), **{k: np.array(v) for k, v in scales.items()}}
    found = inspect(file(tmp_path / "m.onnx", nodes, weights, ["n", 8, 8, 8]), "cpu")["integers"]
    assert [(row["node"].split("_")[0], row["layer"]) for row in found["unfused"]] == [("head/conv2d", "head")]
    assert found["integer"] == {}
    assert sum(found["float"].values()) == 1


def test_conversions_belong_to_what_they_convert() -> None:
    nodes = [
        convolution("stem/conv2d", ["x", "stem.weight"], "c"),
        helper.make_node("Relu", ["c"], ["r"], name="/relu"),
    ]
    layers = Layers(helper.make_graph(nodes, "test", [], []))
    assert layers.of("c_QuantizeLinear", "QuantizeLinear") == "stem"
    assert layers.of("stem.weight_DequantizeLinear", "DequantizeLinear") == "stem"
    assert layers.of("r_nchwc", "Conv") == "stem"
    assert layers.of("ReorderOutput_token_8", "ReorderOutput") == ""


def test_a_file_that_ones_do_not_fit_says_so(tmp_path: Path, weight: np.ndarray) -> None:
    path = file(tmp_path / "m.onnx", [convolution("c", ["x", "w"], "y")], {"w": weight}, ["n", "channels", 8, 8])
    with pytest.raises(ExportError, match=r"m\.onnx does not run on ones of x \[1, 1, 8, 8\]: "):
        inspect(path, "cpu")


def test_intervals_hold_what_they_promise() -> None:
    """95 % of them contain the truth: of a share of 0.9, and of errors of root mean square 2."""
    draw, rounds = np.random.default_rng(0), 200
    shares = [of_share(int(draw.binomial(100, 0.9)), 100) for _ in range(rounds)]
    errors = [of_error((2 * draw.standard_normal(300)) ** 2) for _ in range(rounds // 8)]
    for found, truth in ((shares, 0.9), (errors, 2.0)):
        assert np.mean([each["low"] <= truth <= each["high"] for each in found]) >= 0.88
    assert of_error(np.array([4.0])) == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_an_interval_is_in_the_unit_of_its_figure() -> None:
    """Standardised targets, a figure in their own unit: the ends scale along."""
    from paper_toolbox.engine.data.open_data import open_data
    from paper_toolbox.host import Host

    data = open_data("diabetes", seed=0, validation=0.2, host=Host())
    model = torch.nn.Linear(10, 1)
    small, large = (interval_of(model, figure, data) for figure in (1.0, 50.0))
    assert small["low"] < 1 < small["high"]
    assert {name: 50 * value for name, value in small.items()} == pytest.approx(large)
