"""Verdicts: what is found where something is, what is not where nothing is, and how many seeds are missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from paper_toolbox.engine.comparison import verdicts as module
from paper_toolbox.engine.comparison.verdicts import (
    ALPHA,
    Verdict,
    holm,
    interval,
    more_seeds,
    planned,
    sequential,
    sign_flip,
    verdicts,
)
from scipy.stats import t, ttest_rel


def noise(seed: int, count: int = 10, **moved: float) -> dict[str, list[float]]:
    """Paired values: a seed's own level is common to all methods."""
    draw = np.random.default_rng(seed)
    level = draw.normal(size=count)
    return {
        name: (level + gain + 0.1 * draw.normal(size=count)).tolist() for name, gain in {"first": 0.0, **moved}.items()
    }


def test_better_worse_and_undecided() -> None:
    found = verdicts(noise(3, up=0.5, down=-0.5, none=0.0), higher_is_better=True)
    assert {name: v.outcome for name, v in found.items()} == {"up": "better", "down": "worse", "none": "undecided"}
    up = found["up"]
    assert up.low < up.mean < up.high
    assert up.low > 0.3
    assert up.effect > 2


def test_of_a_loss_less_is_better() -> None:
    assert verdicts(noise(0, up=0.5), higher_is_better=False)["up"].outcome == "worse"


def test_the_same_numbers_are_the_same() -> None:
    own = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = verdicts({"first": own, "twin": own}, higher_is_better=True)
    assert found["twin"] == Verdict("twin", "the same", 0.0, 0.0, 0.0, 1.0, 0.0)


def test_a_failed_run_gives_no_verdict_and_does_not_count_for_others() -> None:
    values = noise(0, up=0.5) | {"broken": [math.nan] * 10}
    found = verdicts(values, higher_is_better=True)
    assert found["broken"].outcome == "failed"
    assert found["up"].p == verdicts(noise(0, up=0.5), higher_is_better=True)["up"].p


def test_where_the_first_failed_there_is_no_verdict() -> None:
    values = noise(0, up=0.5, broken=0.0)
    values["first"][3] = values["broken"][2] = math.nan
    found = verdicts(values, higher_is_better=True)
    assert {name: v.outcome for name, v in found.items()} == {"up": "no verdict", "broken": "failed"}


def test_an_interval_of_few_pairs_is_as_wide_as_it_must_be() -> None:
    """Of normal gains as wide as the t interval, on average; of two pairs it goes from one to the other."""
    draw, widths = np.random.default_rng(0), []
    for _ in range(40):
        gain = draw.normal(size=8)
        low, high = interval(gain)
        widths.append((high - low) / (2 * t.ppf(0.975, 7) * gain.std(ddof=1) / math.sqrt(8)))
    assert np.mean(widths) == pytest.approx(1, abs=0.08)
    assert interval(np.ones(5)) == (1.0, 1.0)
    assert all(map(math.isnan, interval(np.array([1.0, 2.0, 3.0, 4.0]))))  # of which no bootstrap has 95 %


def test_one_look_is_the_sign_flip_test() -> None:
    gain = np.random.default_rng(3).normal(0.5, 1, 11)
    assert sequential(gain, [11]) == pytest.approx(sign_flip(gain))
    assert sequential(gain, [12, 20]) == 1.0  # it is not yet time to look
    assert sequential(np.zeros(11), [11]) == 1.0


def test_looks_cost_less_than_their_number() -> None:
    """All signs alike at the first of two looks: p is 2 of 1024; what the look to come may spend is added."""
    gain, looks, p = np.arange(1.0, 11.0), [10, 12], 2 / 2**10
    assert sequential(gain, looks) == pytest.approx(p + p / (10 / 12) * (2 / 12))
    assert sequential(np.append(gain, [-9.0, -9.0]), looks) <= sequential(gain, looks)  # what is found stays found
    assert sequential(np.append(gain, [1.0, 1.0]), looks) < 2 * 2 / 2**12 + p


def test_looks_that_can_decide_nothing_are_not_taken() -> None:
    assert planned(5, 1) == [5]
    assert planned(10, 1) == [7, 9, 10]
    for others in (1, 7):
        first = planned(40, others)[0]
        assert sequential(np.ones(first), planned(40, others)) * others <= ALPHA


def test_looking_again_and_again_finds_nothing_in_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 comparisons with nine looks about 5 % call something different in any of them."""
    monkeypatch.setattr(module, "RESAMPLES", 2000)
    module._signs.cache_clear()
    looks = planned(40, 1)
    gains = [np.random.default_rng(seed).normal(size=40) for seed in range(300)]
    assert sequential(gains[0], looks) == min(sequential(gains[0][:n], looks) for n in looks)
    assert sum(sequential(gain, looks) <= ALPHA for gain in gains) <= 24


def test_sign_flips_agree_with_the_t_test() -> None:
    values = noise(1, up=0.07)
    gain = np.subtract(values["up"], values["first"])
    assert sign_flip(gain) == pytest.approx(ttest_rel(values["up"], values["first"]).pvalue, abs=0.03)
    assert sign_flip(np.ones(5)) == pytest.approx(2 / 2**5)  # exact: all or none of the signs


def test_holm() -> None:
    """Holm (1979): p times how many are left, never less than one before it."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


def test_seeds_still_needed() -> None:
    """d = 0.5 at 5 % and a power of 80 %: 34 pairs, as every table of the paired t test says."""
    assert more_seeds(0.5, 10, 0.05) == 24
    assert more_seeds(5.0, 3, 0.05) == 3  # fewer than six pairs cannot reach 5 %
    assert more_seeds(1e-3, 10, 0.05) is None
    assert more_seeds(0.0, 10, 0.05) is None


def test_nothing_is_seldom_called_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 150 comparisons of three methods that do not differ, about 5 % call any of them different."""
    monkeypatch.setattr(module, "RESAMPLES", 2000)  # still every combination of the signs of ten pairs
    wrong = sum(
        any(v.outcome in ("better", "worse") for v in verdicts(noise(seed, a=0.0, b=0.0), True).values())
        for seed in range(150)
    )
    assert wrong <= 14  # 7 or 8 are expected; 14 are exceeded by chance in 1 % of all cases
