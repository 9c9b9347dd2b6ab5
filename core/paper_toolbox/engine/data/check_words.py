"""What a report on data says in words: everything that would not stop a training, but would mislead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

UNEVEN = 10  # times that the largest class may be as large as the smallest
SAID = 8  # names that a message lists


def warnings(report: dict[str, Any]) -> Iterator[str]:
    """What would not stop a training, in words."""
    yield from _about_rows(report)
    yield from _about_classes(report.get("classes", []), report["guessing"])
    for name, about in report.get("targets", {}).items():
        yield from _about_target(name, about)
    found = report["columns"]
    if found["constant"]:
        yield f"{_listed(found['constant'])}: every value is the same: nothing to learn from"
    if found["near_constant"]:
        yield f"{_listed(found['near_constant'])}: nearly every value is the same: little to learn from"
    for row in found["outliers"]:
        yield (
            f"column {row['column']!r}: {row['count']} values as far off as {row['value']:.4g} rule its scale; "
            "is that a code for a missing value, or another unit?"
        )
    if report["blank"]:
        yield f"{report['blank']} images are of one colour throughout"


def _about_rows(report: dict[str, Any]) -> Iterator[str]:
    twice, samples = report["twice"], report["samples"]
    if twice["across"]:
        share = twice["across"] / samples["validation"]
        yield (
            f"{twice['across']} validation samples ({share:.1%}) are training samples too: "
            "the validation figure will be too good"
        )
    if twice["training"]:
        yield f"{twice['training']} training samples are copies of another one"
    if twice.get("unlike"):
        best = (
            f": no model can be right in more than {twice['at_best']:.1%}" if report["kind"] == "classification" else ""
        )
        yield f"{twice['unlike']} samples have equal inputs but different targets{best}"
    if (seen := report["text_seen"]) is not None and seen > 0.01:
        yield f"{seen:.1%} of the validation text occurs in the training text: the validation figure will be too good"


def _about_classes(rows: list[dict[str, Any]], guessing: dict[str, float]) -> Iterator[str]:
    counts = [row["training"] for row in rows if row["training"]]
    if len(counts) > 1 and counts[0] > UNEVEN * counts[-1]:
        guess = f"; guessing it gives accuracy {guessing['accuracy']:.3f}" if guessing else ""
        yield (
            f"class {rows[0]['class']!r} has {counts[0] / counts[-1]:.0f} times as many samples as the rarest, "
            f"{rows[len(counts) - 1]['class']!r}{guess}"
        )
    if absent := [row for row in rows if row["training"] and not row["validation"]]:
        yield f"{_listed(absent, 'class')}: no validation sample"
    if absent := [row for row in rows if not row["training"]]:
        yield f"{_listed(absent, 'class')}: no training sample"


def _about_target(name: str, about: dict[str, Any]) -> Iterator[str]:
    if about.get("most_frequent", 0) == 1:
        yield f"target {name!r}: every value is {about['min']:.4g}: nothing to learn"
    elif about.get("most_frequent", 0) > 0.5:
        yield f"target {name!r}: {about['most_frequent']:.0%} of the values are the same"
    if about.get("outliers"):
        ends = f"from {about['min']:.4g} to {about['max']:.4g}"
        yield f"target {name!r}: {about['outliers']} values lie far off the others ({ends})"


def _listed(rows: list[dict[str, Any]], what: str = "column") -> str:
    names = ", ".join(repr(row[what]) for row in rows[:SAID])
    more = f" and {len(rows) - SAID} more" if len(rows) > SAID else ""
    plural = {"column": "columns", "class": "classes"}[what] if len(rows) > 1 else what
    return f"{plural} {names}{more}"
