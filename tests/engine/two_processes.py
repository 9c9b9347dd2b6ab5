"""Run under torchrun: each process writes the hash of its own copy of the trained weights."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from paper_toolbox.engine import fit
from paper_toolbox.engine.progress import Silent
from paper_toolbox.engine.train import train
from paper_toolbox.host import Host
from paper_toolbox.recipe import assemble

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    models = []
    run = fit.Fit.run

    def remember(self: fit.Fit) -> dict[str, object]:
        models.append(self.session.model)
        return run(self)

    fit.Fit.run = remember  # type: ignore[method-assign]  # to see the model of this process
    flags = {"model": "mlp?hidden=16", "epochs": 2, "device": "cpu"}
    train(assemble(Host(), None, ["adamp"], ["adamp.lr=0.01"], flags), folder / "run", Host(), show=Silent())
    content = b"".join(p.detach().numpy().tobytes() for p in models[0].parameters())
    (folder / f"rank{os.environ['RANK']}").write_text(hashlib.sha256(content).hexdigest())
