"""``toolbox inspect``: what is in an ONNX file, and how it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .. import output
from ..options import Json

SLOWEST = 12  # rows of a table; --json has all


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.")],
    provider: Annotated[Literal["auto", "cuda", "tensorrt", "cpu"], typer.Option(help="Where to run it.")] = "auto",
    as_json: Json = False,
) -> None:
    """Show an ONNX file's recipe, methods, figures and parity, and its layers and nodes by type and time."""
    from paper_toolbox.engine.inspect import inspect as inspect_

    found = inspect_(model, provider)
    if as_json:
        output.print_json(found)
        return
    told = found["told"]
    output.print_table(("file", str(model)), list(_file(found)))
    if told:
        output.print_table(("made by", ""), list(_made(told, found["export"])))
        output.print_table(("method", "kind", "package", "code", "paper"), [_method(p) for p in told["plugins"]])
    total = sum(node["us"] for node in found["nodes"]) or 1.0
    output.print_table(("layer", "operators", "types", "µs", "share"), list(_layers(found["layers"], total)))
    slowest = sorted(found["nodes"], key=lambda node: -node["us"])[:SLOWEST]
    times = [(n["name"], n["operator"], n["dtype"], f"{n['us']:.0f}", f"{n['us'] / total:.0%}") for n in slowest]
    output.print_table(("slowest nodes", "operator", "type", "µs", "share"), times)
    _integers(found["integers"])


def _file(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    file, on_cpu = found["file"], found["counts"]["providers"].get("CPUExecutionProvider", 0)
    yield "size", output.size(file["bytes"])
    yield "opset", file["opset"]
    if file["precision"] or file["producer"]:
        yield "precision, producer", " by ".join(filter(None, (file["precision"], file["producer"])))
    yield from ((f"input {name}", text) for name, text in found["inputs"].items())
    yield from ((f"output {name}", text) for name, text in found["outputs"].items())
    beside = f", {on_cpu} of them on the CPU" if found["provider"] != "cpu" and on_cpu else ""
    yield "runs on", f"{found['provider']}: {len(found['nodes'])} nodes{beside}"


def _made(told: dict[str, Any], exported: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """The record of how the file was made; of the settings those that are not the usual ones."""
    from paper_toolbox.recipe import Training

    recipe, usual = told["recipe"], Training().options()
    fields = ((p, p.get("fields") or {}) for p in recipe["plugins"])
    methods = [f"{next(v for k, v in p.items() if k != 'fields')}{_fields(given)}" for p, given in fields]
    settings = {k: v for k, v in recipe.items() if k in usual and v != usual[k] and k not in ("data", "model")}
    yield "data, model", f"{recipe['data']}, {recipe['model']}"
    yield "trained with", ", ".join(methods) or "the usual optimizer"
    yield "settings", ", ".join(f"{k}={v}" for k, v in settings.items()) or "the usual ones"
    yield "made smaller by", " → ".join(f"{c['name']}{_fields(c['fields'])}" for c in told["chain"]) or "nothing"
    for name, value in told["figures"].items():
        around = told.get("interval") if name in ("accuracy", "rmse") else None
        yield name, output.cell(value) + (f"  (95 %: {around['low']:.4g} … {around['high']:.4g})" if around else "")
    if parity := (exported or {}).get("parity"):
        yield "gap to PyTorch", parity["gap"]
    yield "run", told["parent"]
    yield "sha256 of the weights", told["weights_sha256"]


def _fields(fields: dict[str, Any]) -> str:
    return f"({', '.join(f'{k}={output.cell(v)}' for k, v in fields.items())})" if fields else ""


def _method(told: dict[str, str]) -> tuple[str, ...]:
    """Of its code the first letters of the hash; files of earlier versions have none."""
    package, code = f"{told['package']} {told['version']}", told.get("code_sha256", "")[:12]
    return told["name"], told["kind"], package, code, told["paper"]


def _layers(layers: list[dict[str, Any]], total: float) -> Iterator[tuple[Any, ...]]:
    for row in layers[:SLOWEST]:
        kinds = (", ".join(row["operators"]), ", ".join(filter(None, row["dtypes"])))
        yield row["layer"] or "(between layers)", *kinds, f"{row['us']:.0f}", f"{row['us'] / total:.0%}"
    if rest := layers[SLOWEST:]:
        spent = sum(row["us"] for row in rest)
        yield f"({len(rest)} more)", "", "", f"{spent:.0f}", f"{spent / total:.0%}"


def _integers(integers: dict[str, Any] | None) -> None:
    if integers is None:
        return
    kernels = ", ".join(f"{count} {name}" for name, count in integers["integer"].items()) or "none"
    left = f"{integers['quantize']} to integers, {integers['dequantize']} back"
    output.print_table(("integers", ""), [("integer kernels", kernels), ("conversions left", left)])
    why = {"unfused": "there is an integer kernel: the pair did not fuse", "between": "there is no integer kernel"}
    rows = [(e["node"], e["operator"], e["layer"], why[kind]) for kind in why for e in integers[kind]]
    if rows:
        output.print_table(("runs in float between conversions", "operator", "layer", "why"), rows)
