"""Samples per second of `toolbox train`'s loop beside a plain hand-written loop with a DataLoader.

Both train the same model on the same data with the same optimizer, epoch by epoch in turn, in one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from paper_toolbox.engine.data.open_data import Data, open_data
from paper_toolbox.engine.loop.fit import Fit
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.setup.devices import accelerator_of
from paper_toolbox.engine.setup.models import open_model
from paper_toolbox.engine.train import start
from paper_toolbox.host import Host
from paper_toolbox.recipe import Recipe, Training
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Seconds of one epoch of the loop that everybody writes."""
    model.train()
    began = time.perf_counter()
    total = 0.0
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(targets)
    return time.perf_counter() - began


def toolbox_epochs(data: Data, source: str, epochs: int, host: Host) -> Fit:
    """The engine's run, ready to be driven epoch by epoch."""
    recipe = Recipe(Training(model=source, epochs=epochs, schedule="constant", device="cpu"))
    session = start(recipe, host, data, None, accelerator_of(recipe))
    return Fit(session, None, Silent())


def compare(source: str, rounds: int) -> dict[str, Any]:
    """Median ratio of samples per second, ours over the plain loop's, of ``rounds`` interleaved epochs."""
    host = Host()
    data = open_data("digits", host=host)
    fit = toolbox_epochs(data, source, rounds + 1, host)
    model = open_model(source, data.task, host)
    optimizer = torch.optim.AdamW(model.parameters())
    inputs, targets = data.train.take(torch.arange(len(data.train)))
    assert isinstance(inputs, Tensor)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)
    plain, ours = [], []
    for _ in range(rounds + 1):
        plain.append(plain_epoch(model, optimizer, loader))
        before = fit.at.seconds
        fit.epoch()
        ours.append(fit.at.seconds - before)
    ratios = [p / o for p, o in zip(plain[1:], ours[1:], strict=True)]  # the first epoch warms up
    count = len(data.train)
    return {
        "model": source,
        "plain_samples_per_s": round(count / statistics.median(plain[1:])),
        "toolbox_samples_per_s": round(count / statistics.median(ours[1:])),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    rows = [compare(source, arguments.rounds) for source in ("mlp", "cnn")]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
