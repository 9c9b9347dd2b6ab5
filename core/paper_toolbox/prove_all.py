"""Prove the plugins of a checkout, several at once: ``python -m paper_toolbox.prove_all [--all] [--claims] [ROOT]``.

Only those that changed since their proof are tried, with ``--all`` every one; ``--sample N`` tries N of them again,
with ``--most M`` of those that have at most M mutants, writes nothing, and fails where a kept proof promises more than
is found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import documents, proof, prover
from .errors import ToolboxError
from .proof import TIERS, Proof

WORKERS = 2


def main(arguments: Sequence[str]) -> int:
    """The command; it ends with 3 where a plugin is below silver or below what it promised."""
    parser = argparse.ArgumentParser(prog="prove", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path())
    parser.add_argument("--all", action="store_true", help="those that have a fresh proof, too")
    parser.add_argument("--claims", action="store_true", help="claims and speeds, too")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="try N again and compare")
    parser.add_argument("--most", type=int, metavar="M", help="mutants that a plugin tried again may have")
    asked = parser.parse_args(arguments)
    folders = documents.folders(asked.root)
    small = [folder for folder in folders if asked.most is None or _mutants(folder) <= asked.most]
    chosen = sampled(small, asked.sample) if asked.sample else [f for f in folders if asked.all or not fresh(f)]
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        lines = list(pool.map(lambda folder: _one(folder, asked.claims, keep=not asked.sample), chosen))
    if not asked.sample:
        documents.write(asked.root)
    missed = [line for line in lines if line]
    print("\n".join(missed) or f"{len(chosen)} of {len(folders)} plugins proved, none missed a gate")
    return 3 if missed else 0


def fresh(folder: Path) -> bool:
    """Whether the kept proof is of the plugin as it is."""
    kept = proof.read(folder)
    return kept is not None and kept["inputs"] == proof.inputs(folder)


def _mutants(folder: Path) -> int:
    """How many its kept proof tells of."""
    kept = proof.read(folder)
    return int(kept["mutants"]["total"]) if kept and kept["mutants"] else 0


def sampled(folders: Sequence[Path], count: int) -> list[Path]:
    """``count`` of them, others in every state of the checkout: chosen by a hash of all their inputs."""
    state = "".join(proof.inputs(folder) for folder in folders)
    return sorted(folders, key=lambda f: hashlib.sha256((state + f.name).encode()).hexdigest())[:count]


def _one(folder: Path, claims: bool, keep: bool) -> str:
    """Prove one plugin and say how it went; what comes back is the gate it missed."""
    began, promised = time.monotonic(), proof.read(folder)
    try:
        found, report = prover.prove(str(folder), mutants=True, claims=claims)
        if keep:
            prover.write(folder, found)
    except ToolboxError as error:
        return f"{folder.name}: {error}"
    took = f"{time.monotonic() - began:.0f} s"
    if report["mutants"]:
        took += f", {report['mutants']['seconds']:.0f} s of it for {len(report['mutants']['trials'])} mutants"
    print(f"{folder.name}: {found['tier'] or 'no tier'}, {took}", file=sys.stderr, flush=True)
    return _missed(found, promised if not keep else None, folder.name)


def _missed(found: Proof, promised: Proof | None, name: str) -> str:
    if found["next"] in ("bronze", "silver"):
        return f"{name} is not {found['next']}: {'; '.join(found['lacks'])}"
    if promised and TIERS.index(found["tier"]) < TIERS.index(promised["tier"]):
        return f"{name} is {found['tier']}, and its proof.json promises {promised['tier']}: {'; '.join(found['lacks'])}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
