"""A cnn on digits, pruned and quantized: accuracy, ONNX size and latency beside its own fp32 file, over seeds.

The two files run in turn, round by round, in one process; the ratio of a seed is that of the two medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from paper_toolbox.engine.compress import compress
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.files import read_json
from paper_toolbox.host import Host
from paper_toolbox.recipe import Choice, assemble

CHAIN = [Choice("compressor", "structured_pruning", {"sparsity": 0.4}), Choice("compressor", "int8")]


def one_seed(seed: int, folder: Path) -> dict[str, Any]:
    """Train, prune, fine-tune, quantize, measure."""
    host = Host()
    recipe = assemble(host, None, ["adamp"], [], {"model": "cnn", "epochs": 12, "seed": seed, "device": "cpu"})
    finetune = assemble(host, None, ["adamp"], [], {"epochs": 10})
    run = train(recipe, folder / f"trained{seed}", host, show=Silent())
    small = compress(run, CHAIN, folder / f"small{seed}", host, finetune=finetune, show=Silent())
    report = read_json(small.folder / "compress.json")
    before, after = report["before"], report["after"]
    return {
        "seed": seed,
        "accuracy_before": before["accuracy"],
        "accuracy_after": after["accuracy"],
        "smaller": before["onnx_bytes"] / after["onnx_bytes"],
        "faster": before["latency_ms"] / after["latency_ms"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [one_seed(seed, Path(folder)) for seed in range(arguments.seeds)]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    for key in ("smaller", "faster"):
        print(f"median {key}: {statistics.median(row[key] for row in rows):.2f}×")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), "utf-8")


if __name__ == "__main__":
    main()
