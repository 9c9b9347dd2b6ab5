"""Groups of channels that can only be removed together: the one adapter around torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE

from ..errors import ModelError
from . import surgery
from .batch import Inputs, forward
from .capture import evaluating
from .deadline import within
from .endless import endless
from .undo import Saved, differentiable

LAYERS = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR, OPTYPE.BN, OPTYPE.IN, OPTYPE.PRELU, OPTYPE.EMBED)
OPERATIONS = (OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.SLICE, OPTYPE.EXPAND)
RUNTIME_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError)  # of foreign models


@dataclass(frozen=True)
class Group:
    """Channels that several layers share, made by the layer at ``path``.

    A maker is (layer, its own index of each entry, the channel of each entry); ``changed`` are all layers' paths.
    """

    path: str
    size: int
    makers: tuple[tuple[nn.Module, Tensor, Tensor], ...]
    changed: tuple[str, ...]

    def score(self, measure: Callable[[nn.Module], Tensor | None]) -> Tensor | None:
        """The sum of ``measure(layer)``, a number per output channel, over the makers that have one -> (size,)."""
        total = None
        for layer, own, channel in self.makers:
            if (values := measure(layer)) is not None:
                total = torch.zeros(self.size, dtype=torch.float64) if total is None else total
                total.index_add_(0, channel, values.detach().double().cpu()[own])
        return total


class Channels:
    """The ``groups`` of a model that can be cut, found by running ``inputs``; ``refused`` says why others cannot."""

    def __init__(self, model: nn.Module, inputs: Inputs, timeout: float = 60.0) -> None:
        self.model, self.inputs = model, inputs
        self.refused: dict[str, str] = {}
        self.paths = {layer: path for path, layer in model.named_modules()}
        with evaluating(model), differentiable(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch-pruning's remarks about operations, which the cuts are checked for
            try:
                self.graph = within(timeout, lambda: _graph(model, inputs))
            except (TimeoutError, *RUNTIME_ERRORS) as error:
                raise ModelError(f"the dependency graph of {type(model).__name__} cannot be built: {error}") from error
            self.groups = [group for group in self._all() if self._admits(group)]

    def cut(self, group: Group, channels: Sequence[int]) -> None:
        """Remove ``channels`` of ``group`` and record every layer that changes; a failed cut is undone."""
        with evaluating(self.model), differentiable(self.model):
            reason = self._attempt(group, channels) if len(channels) < group.size else "one must stay"
        if reason:
            raise ModelError(f"{len(channels)} channels of {group.path!r} cannot be removed: {reason}")
        for path in group.changed:
            surgery.reshape(self.model, path)

    def _all(self) -> Iterator[Group]:
        left = endless(self.graph)
        self.refused |= {self.paths[layer]: "they are cut apart and joined again without end" for layer in left}
        for found in list(self.graph.get_all_groups(ignored_layers=left)):
            layers = [item for item in found if item.dep.target.type in LAYERS]
            makers = [item for item in layers if self.graph.is_out_channel_pruning_fn(item.dep.handler)]
            reasons = [why for item in found if (why := _objection(item.dep.target))]
            if len(makers) == len(layers):
                reasons.append("no layer reads them")
            path = self.paths[found[0].dep.target.module]
            if reasons:
                self.refused[path] = reasons[0]
                continue
            entries = ((m.dep.target.module, torch.tensor(m.idxs), torch.tensor(m.root_idxs)) for m in makers)
            changed = dict.fromkeys(self.paths[item.dep.target.module] for item in layers)
            yield Group(path, len(found[0].idxs), tuple(entries), tuple(changed))

    def _admits(self, group: Group) -> bool:
        """Whether one channel can go; nothing is changed."""
        reason = self._attempt(group, [group.size - 1], keep=False) if group.size > 1 else "there is only one"
        if reason:
            self.refused[group.path] = reason
        return not reason

    @torch.no_grad()
    def _attempt(self, group: Group, channels: Sequence[int], keep: bool = True) -> str:
        """Cut; why that failed, or nothing. A cut that failed or is not to ``keep`` is undone.

        Right is a cut that equals zeroing what the next layers read of these channels.
        """
        root = self.model.get_submodule(group.path)
        found = self.graph.get_pruning_group(root, self.graph.get_pruner_of_module(root).prune_out_channels, channels)
        before = Saved(item.dep.target.module for item in found)
        reason = ""
        try:
            for item in found:
                if item.dep.target.type in LAYERS and not self.graph.is_out_channel_pruning_fn(item.dep.handler):
                    _stop_reading(item.dep.target.module, item.idxs)
            expected = forward(self.model, self.inputs)
            found.prune(record_history=False)
            outputs = forward(self.model, self.inputs)
            if outputs.shape != expected.shape:
                reason = f"the outputs would change from {tuple(expected.shape)} to {tuple(outputs.shape)}"
            elif not (outputs - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1):
                reason = "an operation between the layers mixes channels"
        except RUNTIME_ERRORS as error:
            reason = f"the model counts on them ({str(error).splitlines()[0]})"
        if reason or not keep:
            before.restore()
        return reason


def _graph(model: nn.Module, inputs: Inputs) -> Any:
    with torch.enable_grad():
        return torch_pruning.DependencyGraph().build_dependency(model, inputs, forward_fn=forward, verbose=False)


def _objection(node: Any) -> str:
    """Why channels that reach this node of the graph are left alone; empty if they need not be."""
    if node.type == OPTYPE.CONV and node.module.groups > 1:
        return "they reach a grouped convolution"
    if node.type in (*LAYERS, *OPERATIONS):
        return ""
    reached = {OPTYPE.OUTPUT: "the model's outputs", OPTYPE.PARAMETER: "a parameter outside the known layers"}
    return f"they reach {reached.get(node.type, f'a {type(node.module).__name__}')}"


def _stop_reading(layer: nn.Module, channels: Sequence[int]) -> None:
    """Zero what ``layer`` reads of ``channels``, in a new parameter."""
    weight: Tensor = layer.weight.detach().clone()  # type: ignore[operator]  # Linear and convolutions have one
    weight.transpose(0, 0 if getattr(layer, "transposed", False) else 1)[list(channels)] = 0
    layer.weight = nn.Parameter(weight)
