"""The whole way on real data: train with AdamP, prune, quantize, export to ONNX, run, explain; then one table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from paper_toolbox_cli import output

FOLDER = Path("demo")


def toolbox(*arguments: str) -> Any:
    """One command as a user types it; what it prints as JSON."""
    print("$ toolbox", *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "paper_toolbox_cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def main() -> None:
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    trained, small = str(FOLDER / "trained"), str(FOLDER / "small")
    toolbox("train", "--plugin", "adamp", "--model", "cnn", "--epochs", "12", "--out", trained)
    chain = ("--plugin", "structured_pruning", "--set", "structured_pruning.sparsity=0.4", "--plugin", "int8")
    report = toolbox("compress", trained, *chain, "--finetune-epochs", "10", "--max-drop", "0.01", "--out", small)
    toolbox("export", trained)
    toolbox("export", small)
    runs = [toolbox("run", f"{folder}/model.onnx") for folder in (trained, small)]
    why = toolbox("attribute", trained, "--plugin", "integrated_gradients", "--out", str(FOLDER / "why"))
    _table(report, runs)
    print(f"learning curve  {trained}/learning_curve.png\nattributions    {why['picture']}")
    print(f"models          {trained}/model.onnx  {small}/model.onnx")


def _table(report: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    before, after = report["before"], report["after"]
    rows = [
        ("accuracy", *(f"{run['accuracy']:.4f}" for run in runs)),
        ("parameters", before["parameters"], after["parameters"]),
        ("ONNX file", *(output.size(side["onnx_bytes"]) for side in (before, after))),
        ("latency, batch of 64", *(f"{side['latency_ms']:.3g} ms" for side in (before, after))),
        ("precision", before["precision"], after["precision"]),
        ("provider", *(run["provider"] for run in runs)),
    ]
    output.print_table(("cnn on digits", "trained", "pruned and quantized"), rows)


if __name__ == "__main__":
    main()
