"""Running exported models: figures, providers that never fall back in silence, damaged files."""

import json

import numpy as np
import onnx
import pytest
import torch
from paper_toolbox.engine.onnx import provider as onnx_provider
from paper_toolbox.engine.onnx.graph import export_onnx
from paper_toolbox.engine.onnx.nodes import Node, placement
from paper_toolbox.engine.onnx.provider import probe
from paper_toolbox.engine.onnx.run import latency, read_metadata, run_onnx, session, sized, synthetic
from paper_toolbox.errors import ExportError, NeedError
from paper_toolbox.task import Task, TensorSpec
from torch import nn

COLUMNS = Task("classification", (TensorSpec("columns", (6,)),), 3)
PRICES = Task("regression", (TensorSpec("columns", (6,)),), 1)
NO_CUDA = probe("cuda") is not None


def batches(task: Task = COLUMNS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    y = x[:, :1] if task.kind == "regression" else x[:, :3].argmax(1)
    return list(zip(x.split(16), y.split(16), strict=True))


def exact(outputs: int) -> nn.Linear:
    """The model that gives what ``batches`` asks for."""
    model = nn.Linear(6, outputs)
    with torch.no_grad():
        model.weight.copy_(torch.eye(6)[:outputs])
        model.bias.zero_()
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "model.onnx"
    export_onnx(exact(3), COLUMNS, batches(), out, metadata={"parent": "run-1"})
    return out


def test_accuracy_from_the_file_alone(model):
    report = run_onnx(model, batches(), provider="cpu")
    assert (report["provider"], report["accuracy"], report["precision"]) == ("cpu", 1.0, "fp32")
    assert read_metadata(model)["parent"] == "run-1"


def test_auto_says_what_it_took(model):
    assert run_onnx(model)["provider"] == ("cpu" if NO_CUDA else "cuda")


def test_rmse_is_in_the_unit_of_the_targets(tmp_path):
    shifted = exact(1)
    nn.init.constant_(shifted.bias, 0.5)
    preprocessing = json.dumps({"targets": {"mean": [100.0], "std": [30.0], "axis": 0}})
    export_onnx(shifted, PRICES, batches(PRICES), tmp_path / "m.onnx", metadata={"preprocessing": preprocessing})
    assert run_onnx(tmp_path / "m.onnx", batches(PRICES), provider="cpu")["rmse"] == pytest.approx(15.0)


def test_bench_and_nodes(model):
    report = run_onnx(model, provider="cpu", bench=True, nodes=True, batch_size=8, seconds=0.05)
    assert 0 < report["latency"]["best_ms"] <= report["latency"]["p50_ms"] <= report["latency"]["p95_ms"]
    assert report["throughput"]["samples_per_second"] > 0
    assert report["nodes"]["operators"] == {"Gemm": 1}
    assert report["nodes"]["providers"] == {"CPUExecutionProvider": 1}
    assert report["nodes"]["dtypes"] == {"float": 1}


def test_latency_is_measured_side_by_side(model, tmp_path):
    heavy = nn.Sequential(nn.Linear(6, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 3))
    export_onnx(heavy, COLUMNS, batches(), tmp_path / "heavy.onnx")
    light, slow = latency([model, tmp_path / "heavy.onnx"], sized(synthetic(COLUMNS), 64), rounds=40)
    assert light["best_ms"] < slow["best_ms"]


def test_made_up_inputs_fit():
    task = Task("tokens", (TensorSpec("ids", (4,), "int64", 9), TensorSpec("mask", (4,), "int64")), 9, layout="dict")
    made = synthetic(task, 50)
    assert (made["ids"].min(), made["ids"].max(), made["mask"].min()) == (0, 8, 1)
    assert sized(made, 3)["ids"].shape == (3, 4)


@pytest.mark.skipif(not NO_CUDA, reason="CUDA works here")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_named_provider_that_does_not_work_is_an_error(model, provider, capfd):
    with pytest.raises(ExportError, match=f"--provider {provider} cannot be used here: .+") as caught:
        run_onnx(model, batches(), provider=provider)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_provider(model):
    with pytest.raises(ExportError, match="there is no provider 'tpu'; providers are auto, cpu, cuda, tensorrt"):
        session(model, "tpu")


def pretend_cuda(monkeypatch, nodes):
    """CUDA that works, on a model the strict option refuses, with ``nodes`` where they would run."""

    def opened(path, provider, chosen):
        if chosen.get_session_config_entry("session.disable_cpu_ep_fallback") == "1":
            raise ExportError("nodes that are assigned to the default CPU EP")
        return "relaxed"

    monkeypatch.setattr(onnx_provider, "probe", lambda provider: None)
    monkeypatch.setattr(onnx_provider, "open_session", opened)
    monkeypatch.setattr(onnx_provider, "placement", lambda path, provider: nodes)


def test_cuda_is_strict_but_for_the_arithmetic_on_shapes(model, monkeypatch):
    conv = Node("conv", "Conv", "CUDAExecutionProvider", "float")
    pretend_cuda(monkeypatch, [conv, Node("shape", "Shape", "CPUExecutionProvider", "int64")])
    assert session(model, "cuda") == "relaxed"
    pretend_cuda(monkeypatch, [conv, Node("odd", "Einsum", "CPUExecutionProvider", "float")])
    with pytest.raises(ExportError, match="would run on the CPU: Einsum"):
        session(model, "cuda")


def test_damaged_files_are_named(model, tmp_path):
    whole = model.read_bytes()
    broken = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"model\.onnx is missing"):
        run_onnx(broken)
    for content, says in ((b"", "is empty"), (whole[: len(whole) // 2], "truncated"), (b"\x00junk" * 9, "no readable")):
        broken.write_bytes(content)
        with pytest.raises(ExportError, match=says) as caught:
            run_onnx(broken)
        assert str(broken) in str(caught.value)


def test_every_truncation_is_an_error(model, tmp_path):
    whole, broken = model.read_bytes(), tmp_path / "model.onnx"
    for keep in range(1, len(whole), 37):
        broken.write_bytes(whole[:keep])
        with pytest.raises((ExportError, NeedError)):
            run_onnx(broken, batches(), provider="cpu")


def test_missing_external_weights(tmp_path):
    out = tmp_path / "model.onnx"
    wide = nn.Sequential(nn.Linear(6, 512), nn.Linear(512, 3))
    export_onnx(wide, COLUMNS, batches(), out, external=True)
    assert run_onnx(out, batches(), provider="cpu")["provider"] == "cpu"
    weights = out.with_name("model.onnx.data")
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ExportError, match="cannot load it"):
        run_onnx(out, batches(), provider="cpu")
    weights.unlink()
    with pytest.raises(ExportError, match="cannot load it"):
        run_onnx(out, batches(), provider="cpu")


def test_a_foreign_model_without_a_task(model, tmp_path):
    foreign = onnx.load(model)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(NeedError, match="does not say what it is for"):
        run_onnx(tmp_path / "foreign.onnx")
    assert run_onnx(tmp_path / "foreign.onnx", batches(), provider="cpu", task=COLUMNS)["accuracy"] == 1.0


def test_inputs_that_do_not_fit(model):
    with pytest.raises(ExportError, match=r"cannot run this batch: .*columns"):
        run_onnx(model, [(torch.ones(2, 5), torch.zeros(2, dtype=torch.int64))], provider="cpu")


def test_placement_reads_what_ran(model):
    (node,) = placement(model, "cpu")
    assert (node.operator, node.dtype, node.computes) == ("Gemm", "float", True)
    assert np.isfinite(session(model, "cpu").run(None, synthetic(COLUMNS))[0]).all()
