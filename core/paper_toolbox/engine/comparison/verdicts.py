"""Which of several methods is better than the first, from paired runs: interval, test, correction, verdict."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

ALPHA = 0.05
POWER = 0.8  # with which the seeds that are still needed are to find what was seen so far
RESAMPLES = 9999  # of the bootstrap, and of the sign-flip test, which is exact up to 13 seeds
FEWEST = 5  # pairs whose smallest and largest mean leave room for 95 %
ENOUGH = 1000  # where more seeds than this are needed, no number is told

Outcome = Literal["better", "worse", "undecided", "the same", "failed", "no verdict"]


@dataclass(frozen=True)
class Verdict:
    """Of one method beside the first: ``mean`` and its 95 % interval are gains, positive where the method is better.

    ``p`` is Holm's, over all methods; ``effect`` the mean over the standard deviation of the pairs (Cohen's d_z);
    ``more`` the seeds that an undecided one still needs, none where that cannot be told. A method with a run that
    failed is "failed"; where a run of the first failed, for the others there is "no verdict".
    """

    method: str
    outcome: Outcome
    mean: float
    low: float
    high: float
    p: float
    effect: float
    more: int | None = None


def verdicts(
    values: Mapping[str, Sequence[float]], higher_is_better: bool, looks: Sequence[int] = ()
) -> dict[str, Verdict]:
    """Of every method but the first. ``values[method][i]`` belongs to seed i; NaN stands for a run that failed.

    ``looks``: after how many seeds verdicts are planned, the last one included, where there may be several.
    """
    first, *others = values
    sign = 1 if higher_is_better else -1
    gains = {name: sign * (np.array(values[name]) - np.array(values[first])) for name in others}
    whole = [name for name in others if np.isfinite(gains[name]).all()]
    adjusted = holm({name: sequential(gains[name], looks) if looks else sign_flip(gains[name]) for name in whole})
    level = ALPHA / max(1, len(whole))  # the strictest that Holm asks for: what more seeds must reach
    judged = {name: _judged(name, gains[name], adjusted[name], level) for name in whole}
    nan = math.nan
    lost: Outcome = "failed" if np.isfinite(values[first]).all() else "no verdict"
    for name in others:
        outcome: Outcome = lost if np.isfinite(values[name]).all() else "failed"
        judged.setdefault(name, Verdict(name, outcome, nan, nan, nan, nan, nan))
    return {name: judged[name] for name in others}


def _judged(name: str, gain: Any, p: float, level: float) -> Verdict:
    mean, spread = float(gain.mean()), float(gain.std(ddof=1)) if len(gain) > 1 else math.nan
    low, high = interval(gain)
    if not gain.any():
        return Verdict(name, "the same", 0.0, low, high, 1.0, 0.0)
    effect = mean / spread if spread else math.copysign(math.inf, mean)
    if p <= ALPHA:
        return Verdict(name, "better" if mean > 0 else "worse", mean, low, high, p, effect)
    return Verdict(name, "undecided", mean, low, high, p, effect, more_seeds(effect, len(gain), level))


def interval(gain: Any) -> tuple[float, float]:
    """95 % of the mean, by the bootstrap over pairs (BCa), widened for few pairs; NaN for fewer than ``FEWEST``.

    Resampling n pairs gives a spread too small by the root of (n - 1) / n, and normal tails: the level is raised by as
    much as makes up for both (Hesterberg, 2014, arXiv:1411.5279: the expanded interval).
    """
    if (count := len(gain)) < FEWEST:
        return math.nan, math.nan
    if len(set(gain.tolist())) < 2:
        return float(gain.min()), float(gain.max())
    tail = stats.norm.sf(math.sqrt(count / (count - 1)) * stats.t.ppf(1 - ALPHA / 2, count - 1))
    source = np.random.default_rng(0)
    found = stats.bootstrap((gain,), np.mean, n_resamples=RESAMPLES, confidence_level=1 - 2 * tail, rng=source)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sign_flip(gain: Any) -> float:
    """Two-sided p of the mean if every pair could as well have been the other way round."""
    if not gain.any():
        return 1.0
    found = stats.permutation_test(
        (gain,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def sequential(gain: Any, looks: Sequence[int]) -> float:
    """p of all looks so far, by the sign-flip test; below α in any of them with a probability of at most α.

    A look may spend the share of α that the seeds since the one before are of all (Kim and DeMets, 1987, with ρ = 1).
    What those so far spend together is counted by flipping the signs of whole paths; those to come are added up.
    """
    shares = np.diff([0, *looks]) / looks[-1]
    done = [n for n in looks if n <= len(gain)]
    if not done or not gain.any():
        return 1.0
    signs = _signs(looks[-1])[:, : len(gain)]  # those of earlier looks stay the same, so that what is found stays found
    paths = np.abs(signs @ np.where(np.arange(len(gain)) < np.array(done)[:, None], gain, 0.0).T)  # (flips, looks)
    scaled = np.stack([_shares_above(column) / share for column, share in zip(paths.T, shares, strict=False)], axis=1)
    least = np.minimum.accumulate(scaled, axis=1)
    spent = [float((least[:, k] <= least[0, k]).mean() + least[0, k] * shares[k + 1 :].sum()) for k in range(len(done))]
    return min(1.0, *spent)


@functools.lru_cache(maxsize=2)
def _signs(count: int) -> Any:
    """(flips, count) of ±1, the first row all 1: every combination, or ``RESAMPLES`` drawn ones where they are more."""
    if 2**count <= RESAMPLES:
        return 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    drawn = np.random.default_rng(0).integers(0, 2, (RESAMPLES, count))
    return np.vstack([np.ones(count), 1.0 - 2.0 * drawn])


def _shares_above(values: Any) -> Any:
    """For each of ``values`` the share of them that are not smaller, equal up to rounding."""
    rounded = np.round(values / (values.max() or 1.0), 12)
    return (len(values) - np.searchsorted(np.sort(rounded), rounded)) / len(values)


def planned(seeds: int, others: int) -> list[int]:
    """After how many seeds it is worth to look, if all but the first are ``others``; the last is ``seeds``.

    A look before all signs alike can decide anything would be spent for nothing.
    """
    looks, n = [], 5
    while n < seeds:
        if 2.0 ** (1 - n) * max(1, others) <= ALPHA * n / seeds:
            looks.append(n)
        n = max(n + 1, math.ceil(n * 1.25))
    return [*looks, seeds]


def holm(ps: Mapping[str, float]) -> dict[str, float]:
    """p of each, adjusted so that all together are wrong with the probability of one (Holm, 1979)."""
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(ps, key=lambda name: ps[name])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[name]))
        adjusted[name] = highest
    return adjusted


def more_seeds(effect: float, seeds: int, level: float) -> int | None:
    """How many more pairs find this effect with a power of 80 %; none beyond ``ENOUGH``.

    The second term is what an unknown spread costs (Guenther, 1981).
    """
    if not math.isfinite(effect) or effect == 0:
        return None
    bound = stats.norm.ppf(1 - level / 2)
    needed = ((bound + stats.norm.ppf(POWER)) / effect) ** 2 + bound**2 / 2
    least = math.log2(2 / level)  # with fewer, the sign-flip test cannot reach the level
    return max(1, math.ceil(max(needed, least)) - seeds) if needed < ENOUGH else None
