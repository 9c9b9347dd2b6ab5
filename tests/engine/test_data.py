"""Reading, splitting, standardising and batching data; and every kind of bad data."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paper_toolbox.engine.data import images
from paper_toolbox.engine.data.open_data import Batches, Columns, Data, Part, open_data
from paper_toolbox.errors import DataError, ParamError
from paper_toolbox.hookspecs import hookimpl
from paper_toolbox.host import Host
from paper_toolbox.kit.batch import Inputs, tensors
from PIL import Image
from torch import Tensor


def everything(data: Data, part: str = "train") -> tuple[Inputs, Tensor]:
    chosen: Part = getattr(data, part)
    return chosen.take(torch.arange(len(chosen)))


def single(data: Data, part: str = "train") -> tuple[Tensor, Tensor]:
    """``everything`` of data with one input."""
    inputs, targets = everything(data, part)
    assert isinstance(inputs, Tensor)
    return inputs, targets


def make_images(folder: Path, count: int = 6, names: tuple[str, ...] = ("cat", "dog"), side: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


Write = Callable[..., str]


@pytest.fixture
def npz(tmp_path: Path) -> Write:
    def write(**arrays: Any) -> str:
        np.savez(tmp_path / "d.npz", **arrays)
        return f"npz:{tmp_path / 'd.npz'}"

    return write


@pytest.mark.parametrize(
    ("source", "kind", "shape", "outputs"),
    [
        ("digits", "classification", (1, 8, 8), 10),
        ("breast_cancer", "classification", (30,), 2),
        ("wine", "classification", (13,), 3),
        ("diabetes", "regression", (10,), 1),
    ],
)
def test_opens_what_is_built_in(source: str, kind: str, shape: tuple[int, ...], outputs: int) -> None:
    data = open_data(source)
    assert (data.task.kind, data.task.inputs[0].shape, data.task.outputs) == (kind, shape, outputs)
    inputs, targets = single(data)
    assert inputs.dtype == torch.float32
    assert targets.shape == ((len(data.train),) if kind == "classification" else (len(data.train), 1))
    assert len(data.task.classes) == (outputs if kind == "classification" else 0)


def test_bundled_classes_keep_their_own_order() -> None:
    assert open_data("breast_cancer").task.classes == ("malignant", "benign")


def test_split_depends_on_the_seed_alone_and_is_stratified() -> None:
    one, same, other = open_data("digits", seed=3), open_data("digits", seed=3), open_data("digits", seed=4)
    assert torch.equal(single(one)[0], single(same)[0])
    assert not torch.equal(one.train.targets, other.train.targets)
    assert len(one.train) + len(one.validation) == 1797
    shares = torch.bincount(one.validation.targets) / torch.bincount(one.train.targets)
    assert shares.max() - shares.min() < 0.03


def test_standardisation_knows_the_training_part_only() -> None:
    data = open_data("wine")
    train, held = single(data)[0], single(data, "validation")[0]
    torch.testing.assert_close(train.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, unbiased=False), torch.ones(13), atol=1e-5, rtol=0)
    assert held.mean(0).abs().max() > 1e-3


def test_validation_rows_do_not_move_the_statistics(npz: Write) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    first = open_data(npz(x=x, y=y))
    held = next(i for i in range(40) if not any(np.allclose(x[i], row) for row in _raw_rows(first)))
    x[held] = 1e6
    assert open_data(npz(x=x, y=y)).preprocessing["standardize"] == first.preprocessing["standardize"]


def _raw_rows(data: Data) -> list[np.ndarray[Any, Any]]:
    """The training rows before standardisation."""
    scale = data.preprocessing["standardize"]["x"]
    return list(single(data)[0].numpy() * np.array(scale["std"]) + np.array(scale["mean"]))


def test_regression_targets_are_standardised_and_recorded() -> None:
    data = open_data("diabetes")
    assert abs(float(data.train.targets.mean())) < 1e-5
    record = data.preprocessing["targets"]
    original = data.train.targets * record["std"][0] + record["mean"][0]
    assert 25 - 1e-3 <= float(original.min()) < float(original.max()) <= 346 + 1e-3


def test_a_constant_column_becomes_zero(npz: Write) -> None:
    x = np.stack([np.full(1003, 0.1), np.arange(1003.0)], 1)  # whose mean is not 0.1, but a rounding away
    inputs, _ = single(open_data(npz(x=x, y=np.arange(1003) % 2)))
    assert inputs[:, 0].abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["digits", "diabetes", "folder", "csv", "text", "dict"])
def test_recorded_preprocessing_gives_the_same_numbers(kind: str, tmp_path: Path) -> None:
    source = _some_source(kind, tmp_path)
    data = open_data(source, seed=1)
    record = json.loads(json.dumps(data.preprocessing))
    again = open_data(source, seed=1, preprocessing=record)
    assert again.task == data.task
    for part in ("train", "validation"):
        (inputs, targets), (inputs2, targets2) = everything(data, part), everything(again, part)
        assert all(torch.equal(a, b) for a, b in zip(tensors(inputs), tensors(inputs2), strict=True))
        assert torch.equal(targets, targets2)


def _some_source(kind: str, folder: Path) -> str:
    if kind == "folder":
        return f"folder:{make_images(folder / 'images')}?size=8"
    if kind == "csv":
        rows = [f"{i},{'ab'[i % 2]},{i / 7},{'yes' if i % 3 else 'no'}" for i in range(30)]
        (folder / "t.csv").write_text("\n".join(["n,letter,x,label", *rows]))
        return f"csv:{folder / 't.csv'}?target=label"
    if kind == "text":
        (folder / "t.txt").write_text("to be or not to be, that is the question. " * 20)
        return f"text:{folder / 't.txt'}?length=16"
    if kind == "dict":
        ids = np.arange(240).reshape(20, 12) % 7
        np.savez(folder / "s.npz", tokens=ids, mask=np.ones_like(ids), y=np.arange(20) % 2)
        return f"npz:{folder / 's.npz'}"
    return kind


def test_recorded_preprocessing_holds_for_other_data(tmp_path: Path) -> None:
    trained = open_data(f"folder:{make_images(tmp_path / 'a')}?size=8&channels=1")
    other = make_images(tmp_path / "b", count=2, names=("dog",), side=20)
    data = open_data(f"folder:{other}", validation=1, preprocessing=trained.preprocessing)
    assert (len(data.train), len(data.validation)) == (0, 2)
    assert data.task == trained.task
    assert data.validation.targets.tolist() == [1, 1]  # as trained, though cats are missing


def test_folder_images_are_standardised_per_channel(tmp_path: Path) -> None:
    data = open_data(f"folder:{make_images(tmp_path / 'i', count=20)}?size=8")
    inputs, targets = single(data)
    assert inputs.shape == (32, 3, 8, 8)
    assert data.task.classes == ("cat", "dog")
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert targets.dtype == torch.int64


def test_a_folder_over_the_budget_is_decoded_on_demand_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"folder:{make_images(tmp_path / 'i')}?size=8"
    held = open_data(source)
    monkeypatch.setattr(images, "BUDGET", 0)
    lazy = open_data(source)
    assert isinstance(lazy.train, Columns)
    assert isinstance(lazy.train.rows["image"], images.ImageFiles)
    assert torch.equal(single(held)[0], single(lazy)[0])


def test_csv_encodes_text_and_recognises_the_task(tmp_path: Path) -> None:
    rows = [f"{i},{'ab'[i % 2]},{i / 7},{i % 3}" for i in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["n,letter,x,level", *rows]))
    base = f"csv:{tmp_path / 't.csv'}?target="
    classes = open_data(base + "level")
    assert (classes.task.kind, classes.task.classes, classes.task.inputs[0].shape) == (
        "classification",
        ("0", "1", "2"),
        (4,),
    )
    assert classes.preprocessing["columns"] == {"n": None, "letter": ["a", "b"], "x": None}
    assert open_data(base + "letter").task.classes == ("a", "b")
    assert open_data(base + "x").task.kind == "regression"
    assert open_data(base + "level&task=regression").task.kind == "regression"
    assert open_data(base + "level&drop=letter,x").task.inputs[0].shape == (1,)
    assert open_data(f"{tmp_path / 't.csv'}?target=x").task.kind == "regression"  # a bare path


def test_a_table_remembers_what_was_predicted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,label\n" + "".join(f"{i},{i * i},{'xy'[i % 2]}\n" for i in range(20)))
    (tmp_path / "new.csv").write_text("more,label,b,a\n1,x,4,2\n")
    record = open_data(f"csv:{tmp_path / 't.csv'}?target=label").preprocessing
    new = open_data(f"csv:{tmp_path / 'new.csv'}", validation=1, preprocessing=record)  # without ?target=
    assert (new.validation.targets.tolist(), new.task.inputs[0].shape) == ([0], (2,))


def test_npz_labels_become_classes_by_value(npz: Write) -> None:
    data = open_data(npz(x=np.random.rand(12, 2), y=np.array([-1, 5] * 6)))
    assert data.task.classes == ("-1", "5")
    assert set(data.train.targets.tolist()) == {0, 1}


def test_npz_with_several_inputs_gives_dictionaries(npz: Write) -> None:
    ids = np.arange(120).reshape(10, 12) % 7
    data = open_data(npz(input_ids=ids, attention_mask=np.ones_like(ids), y=np.arange(10) % 2))
    assert data.task.layout == "dict"
    assert [(s.name, s.dtype, s.vocabulary) for s in data.task.inputs] == [
        ("input_ids", "int64", 7),
        ("attention_mask", "int64", None),
    ]
    inputs, _ = next(iter(Batches(data.train, 4)))
    assert isinstance(inputs, dict)
    assert {name: (tuple(x.shape), x.dtype) for name, x in inputs.items()} == {
        "input_ids": ((4, 12), torch.int64),
        "attention_mask": ((4, 12), torch.int64),
    }


def test_token_targets_make_a_token_task(npz: Write) -> None:
    ids = np.arange(120).reshape(10, 12) % 7
    targets = np.where(ids == 0, -100, (ids + 1) % 7)
    task = open_data(npz(x=ids, y=targets)).task
    assert (task.kind, task.outputs) == ("tokens", 7)


def test_text_windows_share_no_character(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(130))  # every character once
    (tmp_path / "t.txt").write_text(text, "utf-8")
    data = open_data(f"text:{tmp_path / 't.txt'}?length=12")
    (train, following), (held, last) = single(data), single(data, "validation")
    assert torch.equal(train[:, 1:], following[:, :-1])
    seen = set(train.flatten().tolist()) | set(following.flatten().tolist())
    assert not seen & (set(held.flatten().tolist()) | set(last.flatten().tolist()))
    assert int(following.max()) < int(held.min())  # the end is held out
    assert (data.task.kind, data.task.outputs) == ("tokens", 130)


def test_a_function_of_a_module_gives_arrays_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(
        "import torch\nfrom paper_toolbox.engine.data.open_data import open_data\n"
        "def pair(seed, validation):\n    return (torch.randn(20, 3), torch.randn(20, 2)), torch.randn(20, 1)\n"
        "def whole():\n    return open_data('wine')\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    data = open_data("own_data:pair")
    assert (data.task.layout, data.task.kind, len(data.task.inputs)) == ("tuple", "regression", 2)
    assert open_data("own_data:whole").task.outputs == 3
    with pytest.raises(DataError, match="own_data:wrong gave int"):
        open_data("own_data:wrong")
    with pytest.raises(DataError, match="module own_data has no function 'absent'"):
        open_data("own_data:absent")


def test_a_guest_opens_its_own_scheme() -> None:
    class Opener:
        @hookimpl
        def open_data(self, source: str, seed: int, validation: float) -> Data | None:
            return open_data("wine", seed=seed, validation=validation) if source == "cellar:red" else None

    host = Host()
    host.manager.register(Opener())
    assert open_data("cellar:red", host=host).task.outputs == 3


def test_shuffling_depends_on_seed_and_epoch_alone() -> None:
    part = open_data("wine").train
    batches = Batches(part, 32, seed=5)
    first = [index.tolist() for index, _, _ in batches.indexed()]
    assert first == [index.tolist() for index, _, _ in batches.indexed()]
    assert sorted(chain.from_iterable(first)) == list(range(len(part)))
    assert len(batches) == len(first) == 5
    batches.epoch = 1
    assert first != [index.tolist() for index, _, _ in batches.indexed()]
    assert [index.tolist() for index, _, _ in batches.indexed(3)] == [
        index.tolist() for index, _, _ in batches.indexed()
    ][3:]


def test_without_a_seed_batches_come_in_order() -> None:
    part = open_data("wine").train
    order = torch.cat([index for index, _, _ in Batches(part, 32).indexed()])
    assert torch.equal(order, torch.arange(len(part)))
    assert sum(len(y) for _, y in Batches(part, 32, limit=50)) == 50


@pytest.mark.parametrize(("batch_size", "limit"), [(32, None), (31, None), (32, 65), (4, 3)])
def test_ranks_take_equal_shares_of_every_batch(batch_size: int, limit: int | None) -> None:
    part = open_data("wine").train
    alone = [i.tolist() for i, _, _ in Batches(part, batch_size, seed=0, limit=limit).indexed()]
    ranks = [
        [i.tolist() for i, _, _ in Batches(part, batch_size, seed=0, rank=r, world=3, limit=limit).indexed()]
        for r in range(3)
    ]
    for batch, shares in zip(alone, zip(*ranks, strict=True), strict=True):
        assert len({len(share) for share in shares}) == 1
        assert list(chain.from_iterable(shares))[: len(batch)] == batch


def test_a_shuffled_batch_is_never_one_sample() -> None:
    part = open_data("wine").train  # 142 samples
    assert [len(y) for _, y in Batches(part, 47, seed=0)] == [47, 47, 47, 2]
    assert [len(y) for _, y in Batches(part, 47)] == [47, 47, 47, 1]
    assert {len(y) for _, y in Batches(part, 1, seed=0)} == {1}


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ParamError, match="batch_size = 0"):
        Batches(open_data("wine").train, 0)


BAD_NAMES = {
    "digts": "unknown data source 'digts'; did you mean digits",
    "fodler:x": "did you mean folder:x",
    "csv:/absent.csv?target=y": "/absent.csv does not exist",
    "digits?size=3": "no option 'size'",
    "npz": "unknown data source 'npz'",
}


@pytest.mark.parametrize("source", BAD_NAMES)
def test_refuses_unknown_sources(source: str) -> None:
    with pytest.raises(DataError, match=re.escape(BAD_NAMES[source])):
        open_data(source)


BAD_FOLDERS = {
    "no classes": "has no sub-folders",
    "empty class": "holds no images",
    "unreadable": "bad.png cannot be read as an image",
    "truncated": "0.png cannot be read as an image",
    "single class": "every sample is of class 'cat'",
    "one sample": "class 'dog' has 1 sample",
    "splits": "holds test and train, not classes",
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_refuses_bad_folders(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    if case not in ("no classes", "splits", "single class"):
        make_images(folder)
    if case == "empty class":
        (folder / "empty").mkdir()
    elif case == "unreadable":
        (folder / "cat" / "bad.png").write_bytes(b"not an image")
    elif case == "truncated":
        file = folder / "dog" / "0.png"
        file.write_bytes(file.read_bytes()[:120])
    elif case == "single class":
        make_images(folder, names=("cat",))
    elif case == "one sample":
        for i in range(1, 6):
            (folder / "dog" / f"{i}.png").unlink()
    elif case == "splits":
        make_images(folder, names=("train", "test"))
    with pytest.raises(DataError, match=BAD_FOLDERS[case]):
        open_data(f"folder:{folder}?size=8")


def test_an_image_that_breaks_later_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_images(tmp_path / "f")
    monkeypatch.setattr(images, "BUDGET", 0)
    data = open_data(f"folder:{folder}?size=8")
    for file in folder.rglob("*.png"):
        file.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"png cannot be read as an image"):
        everything(data)


BAD_TABLES = {
    "": "is empty",
    "a,b\n": "has a header but no rows",
    "a,label\n1,x\n,y\n2,x\n": "column 'a', row 3 is empty or NaN",
    "a,label\n1,x\n2,\n": "target column 'label', row 3 is empty",
    "a,label\n1,x\ninf,x\n3,y\n4,y\n": "sample 1, column 'a' is inf",
    "a,lable\n1,x\n2,y\n": "no column 'label'; did you mean lable",
    "label\nx\ny\n": "no column is left",
    'a,label\n"1,x\n': "cannot be read as CSV",
    "a,label\n1,x\n2,x\n": "every sample is of class 'x'",
    "a,label\n" + "\n".join(f"n{i},{i % 2}" for i in range(40)): "text column 'a' has 40 different values",
}


@pytest.mark.parametrize("content", BAD_TABLES)
def test_refuses_bad_tables(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    header_only = content == "a,b\n"
    with pytest.raises(DataError, match=BAD_TABLES[content]):
        open_data(f"csv:{tmp_path / 't.csv'}?target={'b' if header_only else 'label'}")


def test_csv_needs_a_target(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"target=COLUMN \(columns: a, b\)"):
        open_data(f"csv:{tmp_path / 't.csv'}")


IDS = np.arange(120).reshape(10, 12) % 7
LABELS = np.arange(10) % 2
BAD_ARRAYS: dict[str, dict[str, object]] = {
    "sample 2 at [1] is nan": {"x": np.where(np.arange(20).reshape(10, 2) == 5, np.nan, 1.0), "y": LABELS},
    "targets: sample 3 at [0] is inf": {"x": np.ones((10, 2)), "y": np.where(np.arange(10) == 3, np.inf, 0.5)},
    "x has 9 samples": {"x": np.ones((9, 2)), "y": LABELS},
    "mask has shape (10, 11)": {"ids": IDS, "mask": np.ones((10, 11), int), "y": LABELS},
    "mask must hold 0 and 1 only": {"ids": IDS, "mask": IDS, "y": LABELS},
    "target 9 lies outside 0..6": {"x": IDS, "y": np.where(IDS == 3, 9, IDS)},
    "label 2 lies outside 0..1": {"x": np.ones((10, 2)), "y": np.arange(10) % 3, "classes": np.array(["a", "b"])},
    "holds the id -1": {"x": IDS - 1, "y": LABELS},
    "no array 'y' for the targets": {"x": IDS},
    "without pickle": {"x": np.array([None, {}], dtype=object), "y": LABELS},
    "it holds no samples": {"x": np.ones((0, 2)), "y": np.ones(0, int)},
    "class targets have shape (10, 3)": {"x": np.ones((10, 2)), "y": np.ones((10, 3), int)},
    "holds <U1, must hold numbers": {"x": np.array([["a"]] * 10), "y": LABELS},
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_refuses_bad_arrays(message: str, npz: Write) -> None:
    source = npz(**BAD_ARRAYS[message])
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(source)


def test_a_truncated_npz_is_named(npz: Write, tmp_path: Path) -> None:
    source = npz(x=np.random.rand(100, 5), y=np.arange(100) % 2)
    file = tmp_path / "d.npz"
    for size in (0, 40, 2000):
        whole = file.read_bytes()
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"d\.npz"):
            open_data(source)
        file.write_bytes(whole)


def test_refuses_text_that_is_too_short_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("short")
    with pytest.raises(DataError, match="has 5 characters; windows of 64 need 130"):
        open_data(f"text:{tmp_path / 't.txt'}")
    with pytest.raises(DataError, match="length=x: must be a whole number"):
        open_data(f"text:{tmp_path / 't.txt'}?length=x")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff" * 100)
    with pytest.raises(DataError, match="is not UTF-8 text"):
        open_data(f"text:{tmp_path / 'b.txt'}")


def test_refuses_data_that_the_record_does_not_fit(npz: Write) -> None:
    record = open_data("wine").preprocessing
    with pytest.raises(DataError, match="recorded statistics have 13 entries"):  # the only input takes the known name
        open_data(npz(x=np.random.rand(10, 2), y=LABELS), preprocessing={"standardize": record["standardize"]})
    two = npz(x=np.random.rand(10, 2), z=np.random.rand(10, 2), y=LABELS)
    with pytest.raises(DataError, match="has no input 'row'"):
        open_data(two, preprocessing={"standardize": record["standardize"]})
    with pytest.raises(DataError, match="'benign' is none of the 3 known classes"):
        open_data("breast_cancer", preprocessing=record)
    small = open_data(npz(x=np.random.rand(10, 2), y=LABELS)).preprocessing
    with pytest.raises(DataError, match="recorded statistics have 2 entries"):
        open_data(npz(x=np.random.rand(10, 3), y=LABELS), preprocessing=small)


@pytest.mark.parametrize("validation", [0.0, 1.0, 1.5])
def test_refuses_impossible_shares(validation: float) -> None:
    with pytest.raises(DataError, match="share held out"):
        open_data("wine", validation=validation)


def test_refuses_a_share_smaller_than_the_classes(npz: Write) -> None:
    with pytest.raises(DataError, match="cannot be split with validation"):
        open_data(npz(x=np.random.rand(10, 2), y=np.arange(10) % 5))
