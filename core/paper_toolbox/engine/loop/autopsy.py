"""Where a run's numbers first went wrong: its last epoch is played again, and every layer and loss watched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ... import catalog
from ..data.open_data import Batches
from ..progress import Silent
from ..setup.objective import Term
from ..setup.session import Progress, Session
from .evaluate import evaluate
from .keep import checkpoint_of, restore

HUGE = 1e6  #: a weight that is worth telling


def first_bad(session: Session, folder: Path | None) -> str:
    """What became NaN or infinite first, at which step, and whose it is; empty where that cannot be played again."""
    from ..train import start
    from .fit import Fit
    from .windows import windows

    if session.regimen is not None:
        return ""
    again = session.again or (lambda: start(session.recipe, session.host, session.data, None, session.accelerator))
    twin = again()
    fit = Fit(twin, None, Silent())
    fit.at = restore(folder, twin, accept_changes=True) if folder and checkpoint_of(folder).exists() else Progress()
    twin.batches.epoch = fit.at.epoch
    twin.wrapped.train()
    with watched(twin) as seen:
        for window in windows(twin.batches.indexed(fit.at.batch), session.recipe.training.accumulate):
            fit.take(window)
            if found := _agreed(twin, next(iter([*seen, *_weights(twin)]), "")):
                return f"first, in step {fit.at.step}, {found}"
        evaluate(twin.model, Batches(twin.data.validation, 256, device=session.accelerator.device), twin.data.task)
        return f"first, on the validation part, {seen[0]}" if seen else ""


def _agreed(session: Session, found: str) -> str:
    """Of several processes, what the first one found that found anything."""
    if session.accelerator.num_processes == 1:
        return found
    return next((each for each in gather_object([found]) if each), "")


@contextmanager
def watched(session: Session) -> Iterator[list[str]]:
    """What is not finite although that which it was made of is, in the order in which it appears."""
    seen: list[str] = []
    scaled = session.accelerator.scaler is not None  # then gradients become infinite on purpose
    layers, weights = session.model.named_modules(), session.model.named_parameters()
    handles = [m.register_forward_hook(_layer(path, seen, scaled), with_kwargs=True) for path, m in layers]
    if not scaled:
        trained = [(name, p) for name, p in weights if p.requires_grad]
        handles += [p.register_post_accumulate_grad_hook(_weight(n, seen)) for n, p in trained]  # type: ignore[no-untyped-call]  # torch's
    session.objective.terms = [_term(term, seen) for term in session.objective.terms]
    try:
        yield seen
    finally:
        session.objective.close()
        for handle in handles:
            handle.remove()


def _layer(path: str, seen: list[str], scaled: bool) -> Callable[..., None]:
    """A hook that tells of the layer's output and of the gradient that it sends back; the innermost layer first."""

    def see(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = list(_tensors([args, kwargs]))
        name = f"{path or 'the model'} ({type(layer).__name__}{_owner(layer)})"
        if not _finite(output) and _finite(given):
            seen.append(f"the output of {name}{_size(layer)}")
        if not scaled:
            _gradients(f"the gradient of {name}", given, list(_tensors(output)), seen)

    return see


def _weight(name: str, seen: list[str]) -> Callable[[Tensor], None]:
    """A hook that tells of the gradient of a weight before any optimizer sees it."""

    def see(weight: Tensor) -> None:
        if not _finite(weight.grad):
            seen.append(f"the gradient of {name}")

    return see


def _term(term: Term, seen: list[str]) -> Term:
    """The loss, which also tells of its value and gradient."""
    name = f"the loss {term.name}{_plugin(term.name, 'loss')}"

    def verb(logits: Tensor, *args: Any, **needs: Any) -> Tensor:
        own = logits.view_as(logits)  # so that its gradient is this loss's alone
        loss = term.verb(own, *args, **needs)
        if not _finite(loss) and _finite(logits):
            seen.append(f"{name}, of outputs that were finite")
        _gradients(f"the gradient of {name}", [own], [loss], seen)
        return loss

    return dataclasses.replace(term, verb=verb)


def _gradients(name: str, inputs: list[Tensor], outputs: list[Tensor], seen: list[str]) -> None:
    """Tell once a gradient that is finite at the ``outputs`` is not at the ``inputs``."""
    arrived: list[bool] = []

    def before(gradient: Tensor) -> None:
        if arrived and all(arrived) and not _finite(gradient):
            seen.append(name)

    for tensor in outputs:
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: arrived.append(_finite(gradient)))  # type: ignore[no-untyped-call]  # torch's
    for tensor in inputs:
        if tensor.requires_grad:
            tensor.register_hook(before)  # type: ignore[no-untyped-call]  # torch's


def _weights(session: Session) -> Iterator[str]:
    plugin = next((c.name for c in session.recipe.plugins if c.kind == "optimizer"), "")
    said = f"{plugin}{_plugin(plugin, 'optimizer')}" if plugin else "torch's AdamW"
    yield from (f"{n}, after the step of {said}" for n, p in session.model.named_parameters() if not _finite(p))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in nested containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)


def _finite(value: Any) -> bool:
    try:
        return all(bool(x.detach().isfinite().all()) for x in _tensors(value))
    except RuntimeError:  # inside torch.func nobody may look at values
        return True


def _size(layer: nn.Module) -> str:
    """How large the layer's own weights have become, where that explains much."""
    largest = max((float(p.detach().abs().max()) for p in layer.parameters(recurse=False) if p.numel()), default=0.0)
    return f", whose weights reach {largest:.0e}" if largest > HUGE else ""


def _owner(layer: nn.Module) -> str:
    """The plugin whose class the layer, or one of its parametrizations, is."""
    packages = {card.entry.module.partition(".")[0]: f"{card.package} {card.version}" for card in catalog.cards()}
    inside = layer.parametrizations.modules() if parametrize.is_parametrized(layer) else ()  # type: ignore[union-attr]  # a ModuleDict
    tops = (type(m).__module__.partition(".")[0] for m in (layer, *inside))
    found = next((packages[top] for top in tops if top in packages and top != "paper_toolbox"), None)
    return f", of {found}" if found else ""


def _plugin(name: str, kind: str) -> str:
    """The package of a method by its name; nothing for what is the toolbox's own."""
    found = [card for card in catalog.cards() if (card.name, card.kind) == (name, kind)]
    return f", of {found[0].package} {found[0].version}" if found else ""
