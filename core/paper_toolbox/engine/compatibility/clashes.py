"""Rules: which methods undo, repeat or mislead each other, as their traits tell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ...kinds import Compressor, Optimizer
from ...kit.wrap import Wrapper
from .case import Case, Finding, Rule, cannot, careful


def apart(case: Case) -> Iterator[Finding]:
    """Samples that are taken one by one, and layers through which they see each other."""
    mixing = [] if case.model is None else [(p, m) for p, m in case.model.named_modules() if sees_its_batch(m)]
    for name, (path, layer) in product(case.having("apart"), mixing[:1]):
        where = f"{path or 'the model'} ({type(layer).__name__})"
        line = f"{name} takes the samples one by one, and through {where} those of a batch see each other"
        instead = "take a model with group or layer normalization, or a normalizer that puts it in"
        yield cannot(f"{line}: {instead}", name, *_who_made(case, layer))


def one_class(case: Case) -> Iterator[Finding]:
    """A class per sample is what classification data have."""
    for name in case.having("classes") if case.task.kind != "classification" else ():
        data, kind = case.settings.data, case.task.kind
        others = [loss for loss, own in case.methods.losses if "classification" not in own.tasks]
        line = f"{name} takes one class per sample; {data} is {kind}: use classification data"
        yield cannot(line, name, *(others or [kind]))


def norm_layers(case: Case) -> Iterator[Finding]:
    """The norm layers of one normalizer in the place of another's."""
    for a, b in combinations(case.having("norm_layers"), 2):
        yield cannot(f"{a} and {b} put norm layers into the same places: keep one of them", a, b)


def low_ranks(case: Case) -> Iterator[Finding]:
    """What one has split, the other finds no more."""
    for a, b in combinations(case.having("low_rank"), 2):
        yield cannot(f"{a} and {b} both split layers into factors of low rank: keep one of them", a, b)


def weight_scales(case: Case) -> Iterator[Finding]:
    """The later parametrization computes its scale from what the earlier one gives."""
    splitting = case.having("splits")
    for a, b in combinations(case.having("weight_scale"), 2):
        if b in splitting:
            yield cannot(f"{b} keeps a weight as several tensors, and must come before {a}: name it first", a, b)
            continue
        yield careful(f"{a} and {b} both set the scale of the weights: where they differ, {b} decides", a, b)


def gradient_scales(case: Case) -> Iterator[Finding]:
    """What is scaled again loses the scale it was given."""
    for name in case.having("gradient_scale") if case.settings.clip_norm is not None else ():
        line = f"clip_norm does little: {name} sets the length of the gradient, or of its step, itself"
        yield careful(line, name, "clip_norm")
    method = case.methods.optimizer
    if isinstance(method, Wrapper) and "gradient_scale" in method.traits:
        inner = method.inner()
        if "gradient_scale" in inner.traits:
            line = f"{case.optimizer} scales gradients for {method.base}, which sets the length of its step itself"
            yield careful(line, case.optimizer, "base")


def lengths(case: Case) -> Iterator[Finding]:
    """Lengths of weights that one method holds and another pulls on."""
    for a, b in product(case.having("pulls_length"), case.having("fixed_length")):
        yield careful(f"{a} draws the lengths of weights to a value, and {b} holds them: it has little effect", a, b)
    decay = decay_of(case.methods.optimizer)
    for name in case.having("pulls_length") if decay else ():
        who = case.optimizer or "the default optimizer"
        line = f"{name} stands in for weight decay, and {who} decays as well: one of the two is enough"
        yield careful(line, name, case.optimizer or "no optimizer")
    if decay and "fixed_length" in case.traits.get(case.optimizer, ()):
        yield careful(f"{case.optimizer} holds the length of weights: leave its weight_decay at 0", case.optimizer)


def decay_of(method: Optimizer | None) -> float:
    """The weight decay of an optimizer, or of the one inside; that of torch's AdamW where none is chosen."""
    if method is None:
        return 0.01
    own: Any = getattr(method, "weight_decay", None)
    if own is None and isinstance(method, Wrapper):
        return decay_of(method.inner())
    return float(own or 0)


def least_losses(case: Case) -> Iterator[Finding]:
    """A step size from the least loss, where that is another one."""
    for a, b in product(case.having("least_loss"), case.having("above_zero")):
        if not getattr(case.parts[a], "f_star", 0):  # the letter of the Polyak step's papers
            yield careful(f"{a} takes the least loss to be 0, and that of {b} is larger: set {a}.f_star", a, b)


def own_weights(case: Case) -> Iterator[Finding]:
    """Weights that a wrapper changes behind the step of an optimizer which does not look at them."""
    for name, traits in case.traits.items():
        if {"own_weights", "fixed_length"} <= traits:
            base = getattr(case.parts[name], "base", name)
            line = f"{name} changes weights behind the step of {base}, which goes on from its own: name another base"
            yield cannot(line, name, "base")
    if case.settings.weights == "bf16_master" and "fixed_length" in case.traits.get(case.optimizer, ()):
        line = f"{case.optimizer} changes weights behind the step, and weights=bf16_master goes on from its own copy"
        yield cannot(f"{line}: take bf16_stochastic", case.optimizer, "weights")


def differences(case: Case) -> Iterator[Finding]:
    """A forward pass in half precision rounds the loss to three digits."""
    for name in case.having("differences") if case.settings.precision != "fp32" else ():
        line = f"{name} looks at small differences of the loss, of which {case.settings.precision} leaves little"
        yield careful(f"{line}: take fp32, or longer steps", name, "precision")


def jacobians(case: Case) -> Iterator[Finding]:
    """Torch's group norm has no batched derivative in mixed precision."""
    norms = [] if case.model is None else [p for p, m in case.model.named_modules() if isinstance(m, nn.GroupNorm)]
    for name in case.having("jacobian") if norms and case.settings.precision != "fp32" else ():
        where, precision = f"{norms[0]} (GroupNorm)", case.settings.precision
        line = f"{name} takes the Jacobian of the outputs, which torch cannot do through {where} in {precision}"
        yield cannot(f"{line}: take fp32", name, "precision")


def derivatives(case: Case) -> Iterator[Finding]:
    """What cannot be differentiated in the way that an optimizer asks for."""
    for a, b in product(case.having("forward_mode"), case.having("no_forward")):
        yield cannot(f"{a} carries derivatives forward, and {b} has none of that mode: take another loss", a, b)
    for a, b in product(case.having("second_order"), case.having("no_second")):
        yield cannot(f"{a} differentiates the loss twice, and {b} has no second derivative: take another loss", a, b)
    for a, b in product(case.having("mapped"), case.having("writes")):
        line = f"{a} maps over single samples, and {b} writes to its buffers in every pass, which cannot be mapped"
        yield cannot(f"{line}: leave one of them out", a, b)


def plain_weights(case: Case) -> Iterator[Finding]:
    """A weight that is computed from other tensors is not the one that is trained."""
    for a, b in product(case.having("plain_weights"), [*case.having("weight_scale"), *case.having("masks")]):
        yield cannot(f"{a} trains the first layer's weight itself, and {b} computes it: leave one of them out", a, b)


def zeros(case: Case) -> Iterator[Finding]:
    """Masked weights are the smallest ones."""
    for a, b in product(case.having("smallest"), case.having("masks")):
        yield cannot(f"{a} trains the smallest weights, which {b} holds at zero: leave one of them out", a, b)


def pairs(case: Case) -> Iterator[Finding]:
    """A batch in parts is compared part by part."""
    for name in case.having("pairs"):
        if case.settings.accumulate > 1:
            line = f"{name} compares the samples of a batch: of each part of accumulate, not of the whole step"
            yield careful(line, name, "accumulate")
        if case.world > 1:
            yield careful(f"{name} compares the samples of each process's share of a batch", name, "processes")


def private(case: Case) -> Iterator[Finding]:
    """What looks at the data beside the private steps."""
    for a, b in product(case.having("private"), case.having("data")):
        line = f"{b} looks at the data itself: what it takes from there is not private, whatever {a} hides"
        yield careful(line, a, b)
    for name in case.having("private") if case.settings.keep == "best" else ():
        line = f"keep=best chooses the epoch by a figure that is not private, whatever {name} hides: set keep=last"
        yield careful(line, name, "keep")


def trained_models(case: Case) -> Iterator[Finding]:
    """Methods for trained models in the run that draws the model anew."""
    if not case.fresh:
        return
    for name in case.having("trained"):
        yield careful(f"{name} is meant for a trained model, and this one is fresh", name, "model")
    for name, part in case.parts.items():
        if isinstance(part, Compressor) and "fresh" not in case.traits[name]:
            line = f"{name} looks at a fresh model here; to make a trained one smaller: toolbox compress RUN --plugin"
            yield careful(f"{line} {name}", name, "model")


def sees_its_batch(layer: nn.Module) -> bool:
    """Whether what a layer answers for a sample depends on the others of the batch: it keeps a mean over batches."""
    if isinstance(layer, _BatchNorm):
        return True
    return getattr(layer, "running_mean", None) is not None and not isinstance(layer, _InstanceNorm)


def _who_made(case: Case, layer: nn.Module) -> list[str]:
    """The normalizer whose package the class of ``layer`` is from, else the model."""
    package = type(layer).__module__.partition(".")[0]
    made = [name for name, part in case.parts.items() if type(part).__module__.partition(".")[0] == package]
    return made or ["model"]


RULES: tuple[Rule, ...] = (
    *(apart, one_class, norm_layers, low_ranks, weight_scales, gradient_scales, lengths, least_losses, own_weights),
    *(differences, jacobians, derivatives, plain_weights, zeros, pairs, private, trained_models),
)
