"""Weights & Biases: its files hold what was told. They are read with wandb's own record types."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paper_toolbox import Run
from paper_toolbox.errors import Interrupted, NeedError
from paper_toolbox.testing.observer import SETTINGS, ObserverSuite, Row, Series, by_figure, rows
from paper_toolbox_wandb import Wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, FIRST, WHOLE = 32768, (1, 2), (1, 4)  # of the LevelDB log format, which wandb's files have behind 7 bytes


def records(file: Path) -> Iterator[Record]:
    """Each record of a transaction log: checksum, length and kind, then the bytes; none crosses a block."""
    content, at, body = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        body = (b"" if kind in FIRST else body) + content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in WHOLE:
            yield Record.FromString(body)


def parts(folder: Path) -> list[list[Record]]:
    """The records of each start of a run, the earliest first; wandb's own process may still be writing them."""
    number = (folder / "wandb-run-id").read_text("utf-8").split()[0]
    files, found, began = (folder.parent / "wandb").glob(f"offline-run-*/run-{number}.wandb"), [], time.monotonic()
    for file in files:
        while not (part := list(records(file))) or not part[-1].HasField("exit"):
            assert time.monotonic() < began + 20, f"{file} is not finished"
            time.sleep(0.02)
        found.append(part)
    return sorted(found, key=lambda part: next(r.run.start_time.ToNanoseconds() for r in part if r.HasField("run")))


def read(folder: Path) -> Series:
    """What the service makes of the parts: where one winds back, the later rows before it go."""
    rows: list[Row] = []
    for part in parts(folder):
        for record in part:
            if record.run.HasField("branch_point"):
                rows = [(step, figures) for step, figures in rows if step <= record.run.branch_point.value]
            if record.HasField("history"):
                rows.append(row(record))
    return by_figure(rows)


def row(record: Record) -> Row:
    found = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
    return int(record.history.step.num), {name: value for name, value in found.items() if not name.startswith("_")}


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))


class TestWandb(ObserverSuite):
    method = Wandb()
    read = staticmethod(read)
    at_once = False


def test_it_stays_on_the_disk_and_tells_the_settings_but_not_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    TestWandb().observe(Run(folder, SETTINGS), rows(1, 2))
    ((run,),) = [[r.run for r in part if r.HasField("run")] for part in parts(folder)]
    told = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {name: told[name] for name in SETTINGS} == SETTINGS
    assert (run.project, run.display_name) == ("paper-toolbox", "run")
    assert not any(r.HasField("environment") or r.HasField("stats") for part in parts(folder) for r in part)
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


@pytest.mark.parametrize(("last", "rewound"), [(4, False), (5, True)])
def test_only_what_was_not_closed_where_it_goes_on_is_wound_back(last: int, rewound: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        TestWandb().observe(Run(folder), rows(1, last), Interrupted("stopped"))
    TestWandb().observe(Run(folder, resumed=True, step=4), rows(5, 5))
    assert [part[-1].exit.exit_code for part in parts(folder)] == [1, 0]
    first, second = (next(r.run for r in part if r.HasField("run")) for part in parts(folder))
    assert first.run_id == second.run_id
    assert (second.HasField("branch_point"), second.resume) == (rewound, not rewound)


def test_killed_before_it_was_closed_it_knows_so_and_before_its_first_row_it_begins_anew(tmp_path: Path) -> None:
    with Wandb().watch(Run(tmp_path, resumed=True)):
        assert (tmp_path / "wandb-run-id").read_text("utf-8").split()[1] == "-1"


def test_a_library_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NeedError, match="pip install wandb"), Wandb().watch(Run(tmp_path)):
        pass
