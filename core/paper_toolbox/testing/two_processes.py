"""One run in two processes, set up as torchrun does; how each of them ends.

Both are forked from a server that has imported the engine once, for all the runs of a test session.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ..errors import ToolboxError
from ..recipe import Recipe

WORLD = 2
IMPORTED = ["paper_toolbox.engine.train", "sklearn.datasets", "matplotlib.backends.backend_agg", "torch._dynamo"]
LIMIT = 120.0  #: seconds


def in_two_processes(recipe: Recipe, out: Path) -> list[dict[str, str]]:
    """Train into ``out``; of each process the hash of its ``weights``, or why the run was ``refused``."""
    return in_both(_train, out.with_name(f"{out.name}-processes"), recipe.to_dict(), out)


def in_both(job: Callable[..., Any], work: Path, *given: Any) -> list[Any]:
    """What ``job(*given)``, a function of a module, returns in each process, as JSON; ``work`` is made for them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    port = _free_port()
    work.mkdir()
    started = [context.Process(target=_run, args=(rank, port, work, job, given), daemon=True) for rank in range(WORLD)]
    for process in started:
        process.start()
    _wait(started)
    said = "\n".join(file.read_text("utf-8", "replace")[-2000:] for file in sorted(work.iterdir()))
    assert all(process.exitcode == 0 for process in started), f"a process failed:\n{said}"
    return [json.loads((work / f"{rank}.json").read_text("utf-8")) for rank in range(WORLD)]


def _wait(started: list[Any]) -> None:
    """Until all have ended well or one has not; what is left then is ended."""
    left: dict[Any, Any] = {process.sentinel: process for process in started}
    while left and (ended := wait(list(left), LIMIT)):
        if any(left.pop(sentinel).exitcode for sentinel in ended):
            break
    for process in started:
        process.kill()
        process.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(rank: int, port: int, work: Path, job: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """One of the two processes."""
    with (work / f"{rank}.txt").open("wb") as file:  # whatever is said here is told when it fails
        os.dup2(file.fileno(), sys.stderr.fileno())
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    (work / f"{rank}.json").write_text(json.dumps(job(*given)), "utf-8")


def _train(content: dict[str, Any], out: Path) -> dict[str, str]:
    try:
        return {"weights": _weights(content, out)}
    except ToolboxError as error:
        return {"refused": str(error)}


def _weights(content: dict[str, Any], out: Path) -> str:
    """The hash of the parameters and buffers that this process ends with, shards made whole."""
    import torch

    from ..engine.loop.fit import Fit
    from ..engine.loop.shards import whole
    from ..engine.progress import Silent
    from ..engine.train import train
    from ..host import Host

    torch.set_num_threads(1)
    sessions, run = [], Fit.run

    def remember(self: Fit) -> dict[str, Any]:
        sessions.append(self.session)
        return run(self)

    Fit.run = remember  # type: ignore[method-assign]  # a run's folder holds the first process's weights alone
    train(Recipe.from_dict(content), out, Host(), show=Silent())
    state = whole(sessions[0].model.state_dict()).values()
    hashed = (x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for x in state)
    return hashlib.sha256(b"".join(hashed)).hexdigest()
