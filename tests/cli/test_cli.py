"""The command line as a user meets it: output, exit statuses, one line per error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import toolbox
from paper_toolbox_cli import app as app_module
from paper_toolbox_cli.app import app
from paper_toolbox_cli.options import complete_field, complete_method
from paper_toolbox_cli.output import cell, size


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = [sys.executable, "-m", "paper_toolbox_cli", "train", "--plugin", "adamp", "--set", "adamp.lr=0.01"]
    subprocess.run([*command, "--model", "mlp", "--epochs", "3", "--out", str(folder)], check=True, capture_output=True)
    return folder


def test_every_command_has_help_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    for command in app.registered_commands:
        status, out, _ = toolbox(capsys, str(command.name), "--help")
        assert status == 0
        assert "--json" in out, command.name


def test_list_search_info(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(toolbox(capsys, "list", "optimizer", "--json")[1])
    assert {"adamp", "sgdp", "sgd"} <= {row["name"] for row in listed}
    assert "adamp" in toolbox(capsys, "search", "scale-invariant")[1]
    info = json.loads(toolbox(capsys, "info", "adamp", "--json")[1])
    assert [f["name"] for f in info["fields"]][:3] == ["lr", "betas", "eps"]
    assert "## Formula" in toolbox(capsys, "info", "adamp")[1]


def test_explain_config_names_every_origin(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("epochs: 7\nbatch_size: 100\nplugins:\n- optimizer: adamp\n  fields: {lr: 1e-2, eps: 1e-9}\n")
    arguments = ("train", str(recipe), "--explain-config", "--set", "adamp.lr=3e-4", "--seed", "5", "--json")
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(toolbox(capsys, *arguments)[1])}
    assert rows["epochs"] == (7, "file")
    assert rows["batch_size"] == (100, "file")
    assert rows["adamp.lr"] == (3e-4, "--set")
    assert rows["adamp.eps"] == (1e-9, "file")
    assert rows["seed"] == (5, "flag")
    assert rows["adamp.delta"] == (0.1, "default")


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["train", "--plugin", "adampp"], 1, "did you mean adamp?"),
        (["train", "--plugin", "adamp", "--set", "adamp.lrr=1"], 1, "did you mean lr?"),
        (
            ["train", "--plugin", "adamp", "--set", "adamp.lr=-1"],
            1,
            "adamp.lr = '-1': must be greater than or equal to 0",
        ),
        (["train", "--set", "adamp.lr=1"], 1, "add --plugin adamp"),
        (["train", "--set", "epoch=1"], 1, "did you mean epochs?"),
        (["train", "--data", "digitz"], 1, "digits"),
        (["train", "--data", "npz:none.npz"], 1, "none.npz"),
        (["train", "--model", "hf"], 1, "hf"),
        (["train", "missing.yaml"], 1, "missing.yaml is missing"),
        (["train", "--device", "cuda"], 1, "no usable CUDA GPU"),
        (["train", "--precision", "fp16"], 1, "bf16"),
        (["train", "--epochs", "0"], 1, "epochs = 0"),
        (["train", "--epochs", "many"], 2, "many"),
        (["train", "--resume", "--out", "run", "--epochs", "3"], 1, "give it no recipe and no options"),
        (["export", "nowhere"], 1, "nowhere is not a run folder"),
        (["run", "nowhere.onnx"], 1, "nowhere.onnx"),
        (["list", "optimiser"], 1, "no kind 'optimiser'"),
        (["info", "nothing_like_it"], 1, "no installed plugin offers"),
        (["check", "nothing_like_it"], 1, "nothing_like_it"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, _, err = toolbox(capsys, *arguments)
    assert found == status, err
    assert "Traceback" not in err
    assert line in err
    if status == 1:
        assert err.strip().splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "paper_toolbox_cli", "info", "nothing_like_it", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr


def test_an_exception_inside_a_plugin_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from paper_toolbox.host import Host

    cls = Host().method("adamp", "optimizer")
    code = "def build(self, params, **needs):\n    raise RuntimeError('broken')\n"
    namespace: dict[str, Any] = {"__name__": cls.__module__}
    exec(code, namespace)  # a function that lives in the plugin's module, as a bug of the plugin would
    monkeypatch.setattr(cls, "build", namespace["build"])
    out = str(tmp_path / "run")
    status, _, err = toolbox(capsys, "train", "--plugin", "adamp", "--model", "mlp", "--out", out)
    assert status == 4
    assert (
        err.strip().splitlines()[-1].startswith("error: plugin paper-toolbox-adamp 0.1.0 failed: RuntimeError: broken")
    )


def test_completion_reads_metadata() -> None:
    assert ("adamp", "AdamP and SGDP: drop the radial part of a step on scale-invariant weights") in complete_method(
        "ada"
    )

    class Chosen:
        params = {"plugin": ["adamp"]}  # noqa: RUF012  # stands in for typer's context

    names = [name for name, _ in complete_field(Chosen(), "adamp.w")]  # type: ignore[arg-type]  # duck-typed
    assert names == ["adamp.weight_decay=", "adamp.wd_ratio="]


def test_measure_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = toolbox(capsys, "measure", str(run), "--json")
    assert (status, err) == (0, "")
    figures = json.loads(out)
    assert figures["accuracy"] > 0.8
    assert figures["macs"] > 0


def test_cells_and_sizes() -> None:
    assert [cell(v) for v in (None, 0.123456, 1234567, True, (1, 2))] == ["", "0.1235", "1,234,567", "True", "1, 2"]
    assert [size(n) for n in (12, 1234, 5_600_000, 7_000_000_000)] == ["12 B", "1.23 kB", "5.6 MB", "7 GB"]


def test_the_command_line_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['toolbox', 'list']\n"
        "from paper_toolbox_cli.app import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'pydantic', 'rich'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_app_and_module_are_one() -> None:
    assert app_module.app is app
