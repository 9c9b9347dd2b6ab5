from __future__ import annotations
from paper_toolbox_weight_norm import WeightNorm
from paper_toolbox.testing.normalizer import NormalizerSuite


class TestWeightNorm(NormalizerSuite):
    method = WeightNorm()

