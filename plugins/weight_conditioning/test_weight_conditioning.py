from __future__ import annotations
from paper_toolbox_weight_conditioning import WeightConditioning
from paper_toolbox.testing.normalizer import NormalizerSuite


class TestWeightConditioning(NormalizerSuite):
    method = WeightConditioning()

