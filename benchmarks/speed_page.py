"""The page of step times, from what ``optimizers.py`` measured: ``python benchmarks/speed_page.py docs``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TITLES = {"resnet18": "ResNet-18's 62 tensors, 11.7 M numbers", "gpt": "GPT-2's 148 tensors, 124 M numbers"}
HEAD = """# How fast is a step?

Times of one step as multiples of torch's fused AdamW in the same round, with 95 % of the median by the bootstrap;
*default*: by torch's own kernel where the method is torch's, else op by op, an elementwise step in pieces that the
cache holds; *compiled*: with `engine=compiled`; *a byte*: divided by the bytes that the method must move, compared with
AdamW's; *extra*: memory taken during a step beside weights, gradients and state, as a share of the weights; *public*:
the fastest public implementation of the same method. Closures are free of charge in the tables.
Written by `python benchmarks/optimizers.py --shapes … --out docs`.
"""


def page(folder: Path) -> str:
    """Every ``optimizer_speed_*.json`` of ``folder`` as Markdown."""
    found = [
        json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("optimizer_speed_*.json"), reverse=True)
    ]
    return "\n".join([HEAD, *(line for content in found for line in _section(content))])


def _section(content: dict[str, Any]) -> Iterator[str]:
    yield f"## {TITLES[content['shapes']]}"
    yield ""
    rows = {row["name"]: row for row in content["rows"]}
    others = ", ".join(f"{kind} {_ratio(rows.get(f'torch AdamW {kind}'))}" for kind in ("foreach", "loop"))
    yield f"{content['machine']}; fused AdamW: {content['base_ms']:.1f} ms; torch's other AdamW: {others}."
    yield ""
    yield "| method | default | extra | compiled | a byte | extra | public |"
    yield "|---|---|---|---|---|---|---|"
    for name in dict.fromkeys(each.rpartition(" ")[0] for each in rows if each.endswith(("auto", "compiled"))):
        yield _row(name, rows)
    yield ""
    if content["whole_steps"]:
        yield "Forward, backward and step of a small net, × AdamW's:"
        yield ", ".join(f"`{row['name'].split()[0]}` {row['ratio']:.2f}" for row in content["whole_steps"]) + "."
        yield ""


def _row(name: str, rows: dict[str, Any]) -> str:
    compiled, default = rows.get(f"{name} compiled"), rows.get(f"{name} auto")
    others = {
        key.partition(" by ")[2].removeprefix("torch "): row
        for key, row in rows.items()
        if key.startswith(f"{name} by ")
    }
    fastest = min(others, key=lambda other: others[other]["ratio"], default="")
    public = f"{_ratio(others[fastest])} {fastest}" if fastest else "–"
    shares = [_of(compiled, "per_byte"), _of(compiled, "extra")]
    parts = [_ratio(default), _of(default, "extra"), _ratio(compiled), *shares]
    return f"| `{name}` | {' | '.join(parts)} | {public} |"


def _ratio(row: dict[str, Any] | None) -> str:
    return f"{row['ratio']:.2f} ({row['low']:.2f} … {row['high']:.2f})" if row else "–"


def _of(row: dict[str, Any] | None, what: str) -> str:
    return f"{row[what]:.2f}" if row else "–"


def write(folder: Path) -> None:
    """``optimizer_speed.md`` beside its data."""
    (folder / "optimizer_speed.md").write_text(page(folder), "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
