"""Fuse a graph into kernels for tensors of any size, once per process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import ToolboxError

Kernel = Callable[[list[Tensor]], Any]  #: it empties the list it is given

# Else a C++ file is compiled for each instruction set of the CPU, for seconds, to see whether the compiler knows it.
OPTIONS: dict[str, Any] = {"cpp.vec_isa_ok": True}
SIZE = 20  # log₂ of the numbers in the tensors that stand in for others while a kernel is made
_kernels: dict[Any, Kernel] = {}


def kernel_of(module: fx.GraphModule, inputs: Sequence[Tensor], name: str) -> Kernel:
    """The kernel of ``module`` for contiguous tensors like ``inputs``, which may differ in size.

    Sizes that are 1, and sizes that equal one another, must do so in every call: the kernel may rely on it.
    """
    first, threads = inputs[0], torch.get_num_threads()
    pattern = tuple(tuple(axes) for axes in _pattern(inputs))
    key = (module.code, tuple(x.dtype for x in inputs), first.device, pattern, threads)
    if key not in _kernels:
        _kernels[key] = _make(module, inputs, name)
    return _kernels[key]


def _make(module: fx.GraphModule, inputs: Sequence[Tensor], name: str) -> Kernel:
    size = 1 + 2 ** (SIZE // max(1, *(x.ndim for x in inputs)))  # odd, so that no width of vectors divides it
    shapes = [[1 if axis < 0 else size + 2 * axis for axis in axes] for axes in _pattern(inputs)]
    examples = [x.new_zeros(shape) for x, shape in zip(inputs, shapes, strict=True)]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's compiler calls what torch deprecates
            return _compiled(module, examples)
    except Exception as error:  # a compiler may raise anything; it is named and chained
        said = " ".join(str(error).split("\n\n")[0].split()) or type(error).__name__
        raise ToolboxError(f"engine 'compiled' cannot compile {name}, use 'eager': {said}") from error


def _compiled(module: fx.GraphModule, examples: list[Tensor]) -> Kernel:
    """What torch.compile would make of the module, without its wrappers: they take 20 µs a call."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table

    with config.patch(OPTIONS):
        traced = make_fx(module, tracing_mode="symbolic")(*examples)  # in torch's own operators
        pure = torch.func.functionalize(traced, remove="mutations")  # that change the inputs at the end alone
        traced = make_fx(pure, select_decomp_table(), tracing_mode="symbolic")(*examples)
        symbolic = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
        kernel: Kernel = compile_fx_inner(traced, symbolic)
        return kernel


def _pattern(inputs: Sequence[Tensor]) -> list[list[int]]:
    """Each size by the order in which it first appears, a size of 1 as -1."""
    order: dict[int, int] = {1: -1}
    return [[order.setdefault(size, len(order) - 1) for size in x.shape] for x in inputs]
