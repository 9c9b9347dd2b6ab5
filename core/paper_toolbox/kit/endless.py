"""Layers whose groups torch-pruning would follow for ever: through slices and joins that shift channels in a circle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import TORCH_CONV, TORCH_LINEAR

STEPS = 100  #: per node of the graph; a group that ends takes less than one


class Index(NamedTuple):
    """A channel of a layer, and the channel of the first layer that it belongs to."""

    idx: int
    root_idx: int


def endless(graph: Any) -> list[nn.Module]:
    """The layers whose output channels have no end of dependencies, as those in front of rotary positions."""
    index_mapping.update_index_mapping(graph)
    layers = [m for m in graph.module2node if isinstance(m, (TORCH_CONV, TORCH_LINEAR))]
    return [layer for layer in layers if not _ends(graph, layer)]


def _ends(graph: Any, layer: nn.Module) -> bool:
    """Whether the search that torch-pruning's ``get_pruning_group`` makes from ``layer`` comes to an end."""
    pruner, count = graph.get_pruner_of_module(layer), graph.get_out_channels(layer)
    waiting = [(graph.module2node[layer], pruner.prune_out_channels, [Index(i, i) for i in range(count or 0)])]
    seen: set[Any] = set()
    while waiting:
        for found, key in _next(*waiting.pop()):
            if key not in seen:
                seen.add(key)
                waiting.append(found)
        if len(seen) > STEPS * len(graph.module2node):
            return False
    return True


def _next(node: Any, cut: Any, channels: Any) -> Iterator[tuple[Any, Any]]:
    """What a cut of ``channels`` at ``node`` asks of its neighbours, and by what one such is known again."""
    for dependency in node.dependencies:
        if not dependency.is_triggered_by(cut):
            continue
        mapped = channels
        for mapping in dependency.index_mapping:
            mapped = mapped if mapping is None else mapping(mapped)
        if mapped:
            key = (dependency.target, dependency.handler, tuple((i.idx, i.root_idx) for i in mapped))
            yield (dependency.target, dependency.handler, mapped), key
