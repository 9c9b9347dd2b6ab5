"""Int8: the plan and its inputs are recorded; integers appear in the exported file."""

import copy
import json

import pytest
import torch
from paper_toolbox.errors import NothingChanged, ParamError
from paper_toolbox.kit.batch import size
from paper_toolbox.kit.quant import planned
from paper_toolbox.testing.compressor import CompressorSuite
from paper_toolbox.testing.small import build
from paper_toolbox_int8 import Int8
from torch import nn


class TestInt8(CompressorSuite):
    method = Int8(samples=8)
    models = ("mlp", "cnn", "transformer")
    left = (1.0, 1.0)  # as many parameters, of a quarter of the size
    exports = False  # test_integers_run exports through the engine, which carries the plan out

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


def test_integers_run(tmp_path):
    """The idea itself: without quantization the kernels are float and the file is four times as large."""
    engine = pytest.importorskip("paper_toolbox.engine.onnx_export")
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
