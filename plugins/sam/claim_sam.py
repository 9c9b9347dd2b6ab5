"""The paper's story, small: where SAM ends, the loss curves less than where plain SGD ends."""

from __future__ import annotations

from paper_toolbox import method
from paper_toolbox.testing.claim import Claim
from paper_toolbox.testing.sharpness import sharpness, trained
from paper_toolbox_sam import SAM


def flatter(seed: int) -> float:
    """log λ_max after SGD less log λ_max after SAM, from the same start and the same batches."""
    plain = method("sgd", "optimizer", lr=0.1, momentum=0.9)
    sam = SAM(base="sgd", lr=0.1, momentum=0.9, rho=0.1)
    return float((sharpness(*trained(plain, seed)) / sharpness(*trained(sam, seed))).log())


CLAIMS = (
    Claim("sam", "figure 3: the Hessian's largest eigenvalue is smaller after SAM than after SGD", flatter, "log λ"),
)
