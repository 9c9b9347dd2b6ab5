"""Fields: declared once, converted, checked, shown."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_toolbox import param
from paper_toolbox.errors import ParamError
from paper_toolbox.method import Method


@dataclass(frozen=True, kw_only=True)
class Sample(Method):
    lr: float = param(1e-3, "step size", low=0)
    share: float = param(0.5, "a share", above=0, below=1)
    betas: tuple[float, float] = param((0.9, 0.999), "two decays", low=0, high=1)
    sizes: tuple[int, ...] = param((3, 5), "kernel sizes", low=1)
    steps: int = param(10, "how many", low=1, high=100)
    cap: float | None = param(None, "an upper limit", low=0)
    mode: Literal["row", "column"] = param("row", "which way")
    nesterov: bool = param(False, "look ahead")
    path: str = param("", "a name")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("lr", "3e-4", 3e-4),
        ("lr", "1", 1.0),
        ("betas", "0.5, 0.9", (0.5, 0.9)),
        ("betas", "(0.5,0.9)", (0.5, 0.9)),
        ("betas", [0, 1], (0.0, 1.0)),
        ("sizes", "7", (7,)),
        ("sizes", "1,2,3", (1, 2, 3)),
        ("steps", "7", 7),
        ("steps", 7.0, 7),
        ("cap", "none", None),
        ("cap", "Null", None),
        ("cap", "2", 2.0),
        ("mode", "column", "column"),
        ("nesterov", "true", True),
        ("nesterov", "no", False),
        ("path", 5, "5"),
    ],
)
def test_text_becomes_a_value(field: str, text: Any, value: Any) -> None:
    built = getattr(Sample.from_options({field: text}), field)
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("lr", "-1", r"lr = '-1': must be greater than or equal to 0 \(step size\)"),
        ("lr", "fast", "lr = 'fast': must be a valid number"),
        ("lr", "nan", "lr = 'nan': must be a finite number"),
        ("lr", float("inf"), "lr = inf: must be a finite number"),
        ("lr", None, "lr = None: must be a valid number"),
        ("share", 0, "share = 0: must be greater than 0"),
        ("share", 1, "share = 1: must be less than 1"),
        ("betas", "0.9,1.1", "betas = '0.9,1.1': must be less than or equal to 1"),
        ("betas", "0.9", "betas = '0.9'"),
        ("betas", "0.9,0.9,0.9", "betas = '0.9,0.9,0.9'"),
        ("sizes", "3,0", "sizes = '3,0': must be greater than or equal to 1"),
        ("steps", "1.5", "steps = '1.5': must be a valid integer"),
        ("steps", 101, "steps = 101: must be less than or equal to 100"),
        ("cap", -1, "cap = -1: must be greater than or equal to 0"),
        ("mode", "rows", "mode = 'rows': must be 'row' or 'column'"),
        ("nesterov", "perhaps", "nesterov = 'perhaps': must be a valid boolean"),
    ],
)
def test_a_bad_value_names_field_value_and_bound(field: str, text: Any, said: str) -> None:
    with pytest.raises(ParamError, match=rf"^sample\.{said}"):
        Sample.from_options({field: text}, "sample")
    with pytest.raises(ParamError, match=r"^Sample\."):
        Sample(**{field: text})


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(ParamError, match=r"sample has no field 'beta'; did you mean betas\? \(it has lr, share"):
        Sample.from_options({"beta": 1}, "sample")


def test_it_is_frozen_equal_and_picklable() -> None:
    sample = Sample(lr=1)
    with pytest.raises(FrozenInstanceError):
        sample.lr = 2.0  # type: ignore[misc]  # that is the point
    assert sample == Sample(lr=1.0)
    assert pickle.loads(pickle.dumps(sample)) == sample


@given(
    st.builds(
        Sample,
        lr=st.floats(0, 1e6),
        betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
        sizes=st.lists(st.integers(1, 99)).map(tuple),
        cap=st.none() | st.floats(0, 9),
        nesterov=st.booleans(),
        path=st.text(),
    )
)
def test_options_survive_json(sample: Sample) -> None:
    assert Sample.from_options(json.loads(json.dumps(sample.options()))) == sample


def test_fields_say_what_is_declared() -> None:
    fields = {f.name: f for f in Sample.fields()}
    assert list(fields)[:3] == ["lr", "share", "betas"]
    assert fields["share"].bounds == "> 0, < 1"
    assert fields["betas"].default == "(0.9, 0.999)"
    assert (fields["cap"].type, fields["cap"].default) == ("float | none", "none")
    assert fields["mode"].type == "row | column"
    assert fields["nesterov"].default == "false"


def test_declaring_a_method_does_not_import_pydantic() -> None:
    code = "import sys; from paper_toolbox import param; param(1.0, 'x', low=0); assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
