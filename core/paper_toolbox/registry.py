"""The registry of known methods: which package to install for a name; written from the plugins' pyproject files."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import ToolboxError
from .kinds import KINDS, PREFIX

FILE = Path(__file__).with_name("registry.yaml")
HEAD = """\
# Every method of this repository and of its community: what `toolbox install NAME` finds.
# `methods` is written by `toolbox registry write` from plugins/*/pyproject.toml; `community` is kept by hand.
"""
COMMUNITY = """\
# Add your package here: name, kind, package, summary, paper, keywords.
community: []
"""
BEGIN, END = "<!-- methods -->", "<!-- /methods -->"
KEYS = ("name", "kind", "package", "version", "summary", "paper", "keywords")


@functools.cache
def entries() -> tuple[dict[str, Any], ...]:
    """Every entry, generated and community: ``{name, kind, package, summary, paper, keywords}``."""
    content = _load(FILE.read_text("utf-8")) if FILE.is_file() else {}
    return (*(content.get("methods") or ()), *(content.get("community") or ()))


def package_of(name: str, kind: str | None = None) -> str | None:
    """The distribution that offers ``name``, if the registry knows one."""
    return next((e["package"] for e in entries() if e["name"] == name and kind in (None, e["kind"])), None)


def names(kind: str | None = None) -> set[str]:
    """All names the registry knows."""
    return {e["name"] for e in entries() if kind in (None, e["kind"])}


def write(root: Path) -> list[Path]:
    """Write what is derived from the plugin folders of a checkout; the files that changed."""
    from .testing import card

    changed = []
    for file, text in _derived(root).items():
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
            changed.append(file)
    return changed + [folder / "README.md" for folder in folders(root) if not card.write(folder)]


def check(root: Path) -> list[str]:
    """What is stale or wrong in a checkout, one line each; nothing is written."""
    from .testing import card

    stale = [f for f, text in _derived(root).items() if not f.is_file() or f.read_text("utf-8") != text]
    stale += [folder / "README.md" for folder in folders(root) if not card.write(folder, check=True)]
    problems = [f"{file.relative_to(root)} is stale: run `toolbox registry write`" for file in stale]
    return problems or list(_faults(_load((root / "registry.yaml").read_text("utf-8"))))


def folders(root: Path) -> list[Path]:
    """The plugin folders of a checkout, by name."""
    if not (root / "plugins").is_dir():
        raise ToolboxError(f"{root.resolve()} is no checkout of Paper Toolbox: it has no folder plugins/")
    return sorted(file.parent for file in (root / "plugins").glob("*/pyproject.toml"))


def _derived(root: Path) -> dict[Path, str]:
    """The generated files of a checkout and what they must hold."""
    import yaml

    methods = sorted((e for f in folders(root) for e in _announced(f)), key=lambda e: (e["kind"], e["name"]))
    registry, readme = root / "registry.yaml", root / "README.md"
    before = registry.read_text("utf-8") if registry.is_file() else ""
    kept = before[at:] if (at := _community(before)) >= 0 else COMMUNITY
    layout: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 1000, "default_flow_style": None}
    block = yaml.safe_dump({"methods": methods}, **layout)
    derived = {registry: f"{HEAD}{block}\n{kept}"}
    text = readme.read_text("utf-8") if readme.is_file() else ""
    if BEGIN in text and END in text:
        start, _, rest = text.partition(BEGIN)
        derived[readme] = f"{start}{BEGIN}\n{_table(methods)}\n{END}{rest.partition(END)[2]}"
    return derived


def _community(text: str) -> int:
    """Where the hand-kept part begins: the comment lines above ``community:`` belong to it; -1 without one."""
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.startswith("community:")), None)
    if start is None:
        return -1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return sum(map(len, lines[:start]))


def _announced(folder: Path) -> Iterator[dict[str, Any]]:
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    for group, offered in project.get("entry-points", {}).items():
        if (kind := group.removeprefix(PREFIX)) not in KINDS:
            continue
        summary, paper = project.get("description", ""), project.get("urls", {}).get("Paper", "")
        for name in offered:
            about = (project["version"], summary, paper, list(project.get("keywords", [])))
            yield dict(zip(KEYS, (name, kind, project["name"], *about), strict=True))


def _table(methods: Iterable[dict[str, Any]]) -> str:
    """The README's table: one row per package and kind."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for method in methods:
        rows.setdefault((method["kind"], method["package"]), []).append(method)
    lines = ["| method | kind | what it does | paper |", "|---|---|---|---|"]
    for (kind, package), same in rows.items():
        folder = package.removeprefix("paper-toolbox-").replace("-", "_")
        offered = ", ".join(f"`{method['name']}`" for method in same)
        paper = f"[paper]({same[0]['paper']})" if same[0]["paper"] else ""
        lines.append(f"| [{offered}](plugins/{folder}/README.md) | {kind} | {same[0]['summary']} | {paper} |")
    return "\n".join(lines)


def _faults(content: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the entries: keys, kinds, names given twice."""
    seen: dict[tuple[str, str], str] = {}
    for entry in (*(content.get("methods") or ()), *(content.get("community") or ())):
        if not isinstance(entry, dict) or not {"name", "kind", "package", "summary", "paper"} <= entry.keys():
            yield f"registry.yaml: an entry needs name, kind, package, summary, paper and keywords: {entry}"
        elif entry["kind"] not in KINDS:
            yield f"registry.yaml: {entry['name']} has the kind {entry['kind']!r}; kinds are {', '.join(KINDS)}"
        elif (other := seen.setdefault((entry["kind"], entry["name"]), entry["package"])) != entry["package"]:
            yield f"registry.yaml: {other} and {entry['package']} both offer {entry['kind']} {entry['name']!r}"


def _load(text: str) -> dict[str, Any]:
    import yaml  # here, as above: commands that read no registry start without it

    try:
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:
        raise ToolboxError(f"registry.yaml cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
