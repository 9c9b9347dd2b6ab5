"""``python -m paper_toolbox_cli``, which `accelerate launch -m` and `torchrun -m` start."""

from .entry import main

main()
