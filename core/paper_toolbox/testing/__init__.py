"""Conformance suites, one per kind, and the checks of a plugin package."""

import sys

SUITES = ("optimizer", "normalizer", "loss", "compressor", "attributor", "model")

if "pytest" in sys.modules:  # failures inside the suites then show the values compared
    sys.modules["pytest"].register_assert_rewrite(*(f"{__name__}.{suite}" for suite in (*SUITES, "plugin")))
