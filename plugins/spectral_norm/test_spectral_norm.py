from __future__ import annotations
from paper_toolbox_spectral_norm import SpectralNorm
from paper_toolbox.testing.normalizer import NormalizerSuite


class TestSpectralNorm(NormalizerSuite):
    method = SpectralNorm()

