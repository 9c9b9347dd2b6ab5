"""A method and a public implementation timed in turns of one process: only their ratio is worth quoting."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import needs
from .. import small
from .beside import Peer, kind_of
from .problems import SEED, STEPS, given_to, resnet18

Run = Callable[[], Any]

WARM_UP = 2  # rounds that do not count: compilation, caches
IMAGES = (8, 2, 16, 16)


def speed(peer: Peer, rounds: int = 15) -> dict[str, float]:
    """Seconds of each (medians), and the quartiles of ours / theirs within a round; below 1 ours is faster."""
    ours, theirs = runs(peer)
    times: list[tuple[float, float]] = []
    for turn in range(-WARM_UP, rounds):
        taken = (_seconds(ours), _seconds(theirs)) if turn % 2 else (_seconds(theirs), _seconds(ours))[::-1]
        times += [taken] if turn >= 0 else []
    low, middle, high = statistics.quantiles([a / b for a, b in times], n=4)
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    return {"ours_s": mine, "theirs_s": other, "ratio": middle, "low": low, "high": high, "rounds": rounds}


def seconds(peer: Peer, rounds: int = 15) -> tuple[float, float]:
    """The medians alone: ours, theirs."""
    found = speed(peer, rounds)
    return found["ours_s"], found["theirs_s"]


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def runs(peer: Peer) -> tuple[Run, Run]:
    """What is timed, in float32, with the fields of the first case; kinds without a driver cannot be."""
    method, theirs = peer.cases[0], peer.theirs
    kind = kind_of(method)
    if theirs is None or kind not in DRIVERS:
        raise ValueError(f"{peer.name} is compared by pairs: there is nothing to time")
    torch.manual_seed(SEED)
    return DRIVERS[kind](method, theirs)


def optimizer(method: Any, theirs: Callable[..., Any]) -> tuple[Run, Run]:
    """One step on a ResNet-18's parameters; a rule by torch's own kernel, else compiled; closures free of charge."""
    gradients = [torch.randn(shape) / 100 for shape in resnet18()]

    def run(build: Callable[[list[nn.Parameter]], Any]) -> Run:
        params = [nn.Parameter(torch.randn(g.shape) / 30) for g in gradients]
        built = build(params)

        def closure() -> Tensor:
            for p, g in zip(params, gradients, strict=True):
                p.grad = g
            return torch.zeros(())

        closure()
        return built.step if method.closure == "none" else lambda: built.step(closure)

    engine = "auto" if getattr(method, "fused", None) else "compiled"
    given = {"engine": engine, "steps_total": STEPS, "generator": torch.Generator().manual_seed(SEED)}
    asked = needs.supply(method.build, given)
    return run(lambda params: method.build(params, **asked)), run(lambda params: theirs(method, params))


def loss(method: Any, theirs: Callable[..., Any]) -> tuple[Run, Run]:
    """Forward and backward of a batch of 256 with 1000 outputs."""
    classes = "classification" in method.tasks
    logits = torch.randn(256, 1000, requires_grad=True)
    targets = torch.arange(256) % 32 if classes else torch.randn(256, 1000)
    made = given_to(method, logits.detach())
    single = {n: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in made.items()}
    given = {n: v.detach().requires_grad_() if n == "features" else v for n, v in single.items()}
    leaves = [logits, *(v for v in given.values() if isinstance(v, Tensor) and v.requires_grad)]

    def run(value: Callable[[], Tensor]) -> Any:
        return torch.autograd.grad(value(), leaves, allow_unused=True)

    return (
        lambda: run(lambda: method(logits, targets, **given)),
        lambda: run(lambda: theirs(method, logits, targets, given)),
    )


def normalizer(method: Any, theirs: Callable[..., Any]) -> tuple[Run, Run]:
    """Forward and backward of a small convolutional net."""
    made, x = net(), torch.randn(IMAGES)
    asked = {n: v for n, v in needs.of(method.apply).items() if v}
    given = {n: v for n, v in {"batches": [(x, torch.arange(len(x)) % small.CLASSES)]}.items() if n in asked}
    ours, other = (
        method.apply(copy.deepcopy(made), **given).train(),
        theirs(method, copy.deepcopy(made)).float().train(),
    )
    return lambda: ours(x).sum().backward(), lambda: other(x).sum().backward()


def attributor(method: Any, theirs: Callable[..., Any]) -> tuple[Run, Run]:
    """The map of a batch of 8 images."""
    model, x = net().eval(), torch.randn(IMAGES)
    classes = torch.arange(len(x)) % small.CLASSES
    given = needs.supply(method.attribute, {"generator": torch.Generator().manual_seed(SEED)})
    return lambda: method.attribute(model, x, classes, **given), lambda: theirs(method, model, x, classes)


def compressor(method: Any, theirs: Callable[..., Any]) -> tuple[Run, Run]:
    """The compression itself, of a small residual net."""
    made: Any = small.build("cnn")
    given = {"batches": made.batches, "loss": F.cross_entropy, "generator": torch.Generator().manual_seed(SEED)}
    asked = needs.supply(method.compress, given)
    return (
        lambda: method.compress(copy.deepcopy(made.model), **asked),
        lambda: theirs(method, copy.deepcopy(made.model), made.batches),
    )


def net() -> nn.Sequential:
    """(B, 2, 16, 16) -> (B, 4), with BatchNorm."""
    first = [nn.Conv2d(2, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.SiLU()]
    second = [nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.SiLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32, small.CLASSES))


DRIVERS: dict[str, Callable[..., tuple[Run, Run]]] = {
    "optimizer": optimizer,
    "loss": loss,
    "normalizer": normalizer,
    "attributor": attributor,
    "compressor": compressor,
}
