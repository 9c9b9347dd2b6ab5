"""The paper's story, small: where GAM ends, the loss curves less than where plain SGD ends."""

from __future__ import annotations

from paper_toolbox import method
from paper_toolbox.testing.claim import Claim
from paper_toolbox.testing.sharpness import sharpness, trained
from paper_toolbox_gam import GAM


def flatter(seed: int) -> float:
    """log λ_max after SGD less log λ_max after GAM, from the same start and the same batches."""
    plain = method("sgd", "optimizer", lr=0.1, momentum=0.9)
    gam = GAM(base="sgd", lr=0.1, momentum=0.9)
    return float((sharpness(*trained(plain, seed)) / sharpness(*trained(gam, seed))).log())


CLAIMS = (
    Claim("gam", "Hessian spectra: the largest eigenvalue is smaller after GAM than after SGD", flatter, "log λ"),
)
