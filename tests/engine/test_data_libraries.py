"""Parquet files, data sets of the ``datasets`` library, and those of torchvision, all from files made here."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
from paper_toolbox.engine.data import images
from paper_toolbox.engine.data.open_data import Data, open_data
from paper_toolbox.errors import DataError
from paper_toolbox.kit.batch import tensors
from PIL import Image
from scipy.io import savemat
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

CLASSES = ["stay", "go", "wait"]
WORDS = ["[PAD]", "[UNK]", "good", "bad", "film", "very"]
Saved = Callable[..., str]


def everything(data: Data, part: str = "train") -> tuple[list[torch.Tensor], torch.Tensor]:
    chosen = getattr(data, part)
    inputs, targets = chosen.take(torch.arange(len(chosen)))
    return tensors(inputs), targets


def frame(rows: int = 30) -> pandas.DataFrame:
    i = np.arange(rows)
    letters = np.array(["a", "b"])[i % 2]
    return pandas.DataFrame({"n": i, "letter": letters, "x": i / 7, "label": np.array(CLASSES)[i % 3]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the library keeps of the files it reads stays in the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    def save(columns: dict[str, Any], features: dict[str, Any] | None = None) -> str:
        made = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
        made.save_to_disk(str(tmp_path / "saved"))
        return f"hf:{tmp_path / 'saved'}"

    return save


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    return folder


# Parquet


def test_parquet_is_read_by_the_rules_of_csv(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "t.csv", index=False)
    frame().to_parquet(tmp_path / "t.parquet")
    plain = open_data(f"csv:{tmp_path / 't.csv'}?target=label&drop=n")
    data = open_data(f"{tmp_path / 't.parquet'}?target=label&drop=n")  # by its suffix
    assert data.task == plain.task
    assert data.preprocessing | {"source": ""} == plain.preprocessing | {"source": ""}
    assert torch.equal(everything(data)[0][0], everything(plain)[0][0])
    assert torch.equal(everything(data)[1], everything(plain)[1])


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    for year in (1, 2):
        (tmp_path / "all" / f"year={year}").mkdir(parents=True)
        frame(10).to_parquet(tmp_path / "all" / f"year={year}" / "part.parquet")
    (tmp_path / "all" / "_SUCCESS").touch()
    data = open_data(f"parquet:{tmp_path / 'all'}?target=label")
    assert len(data.train) + len(data.validation) == 20
    assert data.preprocessing["columns"] == {"n": None, "letter": ["a", "b"], "x": None, "year": None}


def test_parquet_types_that_csv_does_not_have(tmp_path: Path) -> None:
    table = frame()
    table["flag"] = table.n % 3 == 0
    table["maybe"] = table.n.astype("Int64")
    table["day"] = pandas.Categorical(table.letter)
    table["price"] = pandas.Series(table.n * 2).astype("int64[pyarrow]")
    table.to_parquet(tmp_path / "t.parquet")
    columns = open_data(f"parquet:{tmp_path / 't.parquet'}?target=label").preprocessing["columns"]
    assert columns["flag"] is columns["maybe"] is columns["price"] is None
    assert columns["day"] == ["a", "b"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("lists", "column 'lists' holds list<"),
        ("damaged", "cannot be read as Parquet"),
        ("empty folder", "holds no *.parquet"),
        ("no target", "say which column to predict: target=COLUMN (columns: n, letter, x, label"),
        ("missing", "column 'n', row 4 is empty or NaN"),
        ("not installed", "needs the package pyarrow: pip install 'paper-toolbox-core[parquet]'"),
    ],
)
def test_refuses_bad_parquet(case: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, path = frame(), tmp_path / "t.parquet"
    if case == "lists":
        table["lists"] = [[1, 2]] * len(table)
    elif case == "missing":
        table["n"] = table.n.astype("Int64").where(table.n != 4)
    table.to_parquet(path)
    if case == "damaged":
        path.write_bytes(path.read_bytes()[:50])
    elif case == "empty folder":
        (path := tmp_path / "none").mkdir()
    elif case == "not installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(f"parquet:{path}" + ("" if case == "no target" else "?target=label"))


# datasets


def label() -> Any:
    return datasets.ClassLabel(names=CLASSES)


def test_a_saved_table_keeps_the_names_of_its_classes(saved: Saved) -> None:
    columns = {"x": [i / 7 for i in range(30)], "kind": [i % 2 for i in range(30)], "label": [i % 3 for i in range(30)]}
    features = {"x": datasets.Value("float32"), "kind": datasets.ClassLabel(names=["b", "a"]), "label": label()}
    data = open_data(saved(columns, features))
    assert data.task.classes == tuple(CLASSES)
    assert data.preprocessing["columns"] == {"x": None, "kind": ["a", "b"]}
    assert torch.bincount(data.train.targets).tolist() == [8, 8, 8]


def test_splits_of_a_saved_data_set(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict({"x": [i / 7 for i in range(30)], "y": [i % 2 for i in range(30)]})
    both = datasets.DatasetDict(train=made, test=made.select(range(10)))
    both.save_to_disk(str(tmp_path / "both"))
    source = f"hf:{tmp_path / 'both'}?target=y"
    data = open_data(source)
    assert len(data.train) + len(data.validation) == 30
    new = open_data(f"{source}&split=test", validation=1, preprocessing=data.preprocessing)
    assert len(new.validation) == 10
    with pytest.raises(DataError, match="no split 'tset'; did you mean test"):
        open_data(f"{source}&split=tset")


def pictures(folder: Path, count: int = 12) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)) for _ in range(count)]


def sums(data: Data) -> torch.Tensor:
    """Of the pixels of each image, sorted."""
    scale = data.preprocessing["standardize"]["image"]
    mean, std = (torch.tensor(scale[name]).view(3, 1, 1) for name in ("mean", "std"))
    every = torch.cat([everything(data, part)[0][0] for part in ("train", "validation")])
    return (every * std + mean).sum((1, 2, 3)).sort().values


def test_images_are_as_those_of_a_folder(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pictures(tmp_path)
    columns = {"picture": made, "label": [i % 3 for i in range(12)], "note": ["x"] * 12}
    features = {"picture": datasets.Image(), "label": label(), "note": datasets.Value("string")}
    source = saved(columns, features) + "?size=8"
    for i, picture in enumerate(made):
        (tmp_path / "folder" / CLASSES[i % 3]).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "folder" / CLASSES[i % 3] / f"{i:02}.png")
    beside = open_data(f"folder:{tmp_path / 'folder'}?size=8")
    held = open_data(source)
    assert held.task.inputs == beside.task.inputs
    assert held.task.classes == tuple(CLASSES)
    torch.testing.assert_close(sums(held), sums(beside))
    monkeypatch.setattr(images, "BUDGET", 0)
    lazy = open_data(source)
    assert not isinstance(lazy.train.rows["image"], torch.Tensor)  # type: ignore[attr-defined]  # columns
    assert torch.equal(everything(lazy)[0][0], everything(held)[0][0])


def texts(saved: Saved, last: str = "good") -> str:
    written = ["very good film", "bad", "bad film", "good good good good good", "unheard film"] * 5 + [last]
    columns = {"review": written, "label": [i % 3 for i in range(26)]}
    return saved(columns, {"review": datasets.Value("string"), "label": label()})


def test_text_becomes_ids_and_their_mask(saved: Saved, tokenizer: Path) -> None:
    data = open_data(f"{texts(saved)}?tokenizer={tokenizer}&length=4", validation=0.5)
    assert [(s.name, s.shape, s.vocabulary) for s in data.task.inputs] == [
        ("input_ids", (4,), len(WORDS)),
        ("attention_mask", (4,), None),
    ]
    rows = {tuple(row) for part in ("train", "validation") for row in everything(data, part)[0][0].tolist()}
    assert rows == {(5, 2, 4, 0), (3, 0, 0, 0), (3, 4, 0, 0), (2, 2, 2, 2), (1, 4, 0, 0), (2, 0, 0, 0)}
    (ids, mask), _ = everything(data)
    assert torch.equal(mask, (ids != 0).long())
    again = open_data(texts(saved), validation=1, preprocessing=json.loads(json.dumps(data.preprocessing)))
    assert again.task == data.task  # the recorded tokenizer and length
    (tokenizer / "tokenizer.json").write_text((tokenizer / "tokenizer.json").read_text().replace("very", "much"))
    with pytest.raises(DataError, match="is not the tokenizer that the model was trained with"):
        open_data(texts(saved), validation=1, preprocessing=data.preprocessing)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "jsonl"])
def test_data_files_alone_and_in_a_folder(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / f"train.{kind}"
    if kind.startswith("json"):
        frame().to_json(path, orient="records", lines=True)
    else:
        getattr(frame(), f"to_{kind}")(path, index=False)
    for place in (path, tmp_path / "files"):
        data = open_data(f"hf:{place}?target=label")
        assert data.task.classes == tuple(sorted(CLASSES))
        assert data.task.inputs[0].shape == (4,)


def test_a_data_set_of_the_hub_comes_from_the_cache_alone(tmp_path: Path, cache: Path) -> None:
    made = datasets.Dataset.from_dict({"x": [i / 7 for i in range(30)], "label": [i % 3 for i in range(30)]})
    place = cache / "someone___flowers" / "default" / "0.0.0" / ("0" * 40)
    place.mkdir(parents=True)
    made.save_to_disk(str(tmp_path / "made"))
    (tmp_path / "made" / "data-00000-of-00001.arrow").rename(place / "flowers-train.arrow")
    splits = {"train": {"name": "train", "num_bytes": 1, "num_examples": 30, "dataset_name": "flowers"}}
    features = json.loads((tmp_path / "made" / "dataset_info.json").read_text())["features"]
    about = {"builder_name": "parquet", "dataset_name": "flowers", "config_name": "default", "features": features}
    (place / "dataset_info.json").write_text(
        json.dumps(about | {"splits": splits, "version": {"version_str": "0.0.0"}})
    )
    data = open_data("hf:someone/flowers")
    assert len(data.train) + len(data.validation) == 30
    with pytest.raises(DataError, match=r"has the revision 0{40} of it; download=true asks the hub"):
        open_data("hf:someone/flowers?revision=abc")
    with pytest.raises(DataError, match=r"hf:someone/trees cannot be opened: .*download=true"):
        open_data("hf:someone/trees")


def test_no_code_and_no_pickle_of_a_data_set_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text(f"open({str(trap)!r}, 'w')\n")
    with pytest.raises(DataError, match="cannot be opened"):
        open_data(f"hf:{tmp_path / 'script'}?target=y")
    (tmp_path / "pickles").mkdir()
    frame().to_pickle(tmp_path / "pickles" / "train.pkl")
    with pytest.raises(DataError, match=r"cannot be opened: No .* data files found"):
        open_data(f"hf:{tmp_path / 'pickles'}?target=label")
    assert not trap.exists()


def test_options_that_a_folder_cannot_have_are_refused(saved: Saved) -> None:
    source = saved({"x": [i / 7 for i in range(9)], "label": [i % 3 for i in range(9)]})
    with pytest.raises(DataError, match="no split 'test'; name one with split=: it has train"):
        open_data(f"{source}?split=test")
    with pytest.raises(DataError, match="revision= is for data sets of the hub"):
        open_data(f"{source}?revision=main")


BAD_HUB: dict[str, tuple[dict[str, Any], dict[str, str] | None, str]] = {
    "say which column to predict: target=COLUMN (columns: x, y)": ({"x": [1.0] * 9, "y": [0, 1, 2] * 3}, None, ""),
    "no column 'yy' there; did you mean y?": ({"x": [1.0] * 9, "y": [0, 1, 2] * 3}, None, "?target=yy"),
    "column 'x' holds list<": ({"x": [[1.0]] * 9, "label": [0, 1, 2] * 3}, None, ""),
    "column 'x' is text: name the tokenizer": ({"x": ["a"] * 9, "label": [0, 1, 2] * 3}, None, ""),
    "none has no tokenizer.json": ({"x": ["a"] * 9, "label": [0, 1, 2] * 3}, None, "?tokenizer=none"),
    "has 2 text columns, x, z: say which, text=COLUMN": (
        {"x": ["a"] * 9, "z": ["b"] * 9, "label": [0, 1, 2] * 3},
        None,
        "?tokenizer=none",
    ),
    "target column 'label', row 0 is empty or NaN, and 8 more rows": (
        {"x": [1.0] * 9, "label": [-1] * 9},
        {"x": "float32", "label": ""},
        "",
    ),
}


@pytest.mark.parametrize("message", BAD_HUB)
def test_refuses_bad_columns(message: str, saved: Saved) -> None:
    columns, types, options = BAD_HUB[message]
    features = {n: datasets.Value(t) if t else label() for n, t in types.items()} if types else None
    source = saved(columns, features)
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(source + options)


# torchvision


STAND_IN = '''
"""Stands in for torchvision, which is not installed here: the names, arguments, files and answers of its data sets."""

import numpy as np
import torch
from pathlib import Path
from PIL import Image
from scipy.io import loadmat


class MNIST:
    classes = [f"{i} - digit" for i in range(10)]

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        raw = Path(root) / type(self).__name__ / "raw"
        if download:
            raise OSError("no network")
        part = "train" if train else "t10k"
        if not (raw / f"{part}-images-idx3-ubyte").is_file():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        images = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8)[16:]
        self.data = torch.from_numpy(images.reshape(-1, 28, 28))
        self.targets = torch.from_numpy(np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index].numpy()), int(self.targets[index])


class SVHN:
    def __init__(self, root, split="train", transform=None, target_transform=None, download=False):
        loaded = loadmat(Path(root) / f"{split}_32x32.mat")
        self.labels = loaded["y"].astype(np.int64).squeeze() % 10
        self.data = np.transpose(loaded["X"], (3, 2, 0, 1))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(np.transpose(self.data[index], (1, 2, 0))), int(self.labels[index])
'''


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small stand-in with torchvision's interface, on files of the real formats: the library itself is not here."""
    (tmp_path / "site" / "torchvision").mkdir(parents=True)
    (tmp_path / "site" / "torchvision" / "__init__.py").touch()
    (tmp_path / "site" / "torchvision" / "datasets.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    root = tmp_path / "root"
    (root / "MNIST" / "raw").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 50)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        sizes = np.array([2051, count, 28, 28], ">i4").tobytes()
        (root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte").write_bytes(sizes + pixels.tobytes())
        labels = np.array([2049, count], ">i4").tobytes() + bytes(i % 10 for i in range(count))
        (root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        pixels = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        digits = np.array([[i % 10 + 1] for i in range(count)], np.uint8)  # the digit 0 is 10 in the file
        savemat(root / f"{ {'t10k': 'test'}.get(part, part) }_32x32.mat", {"X": pixels, "y": digits})
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def test_images_of_torchvision(torchvision: Path) -> None:
    """Through the stand-in: grey and coloured, by a flag and by the name of the part."""
    grey = open_data(f"torchvision:MNIST?root={torchvision}")
    assert (grey.task.inputs[0].shape, grey.task.outputs) == ((1, 28, 28), 10)
    assert len(grey.train) + len(grey.validation) == 60
    assert grey.task.classes[3] == "3 - digit"
    test = f"torchvision:MNIST?root={torchvision}&split=test"
    held = open_data(f"torchvision:MNIST?root={torchvision}", validation_data=test)
    assert (len(held.train), len(held.validation)) == (60, 50)
    pixels = np.fromfile(torchvision / "MNIST" / "raw" / "train-images-idx3-ubyte", np.uint8)[16:]
    scale = held.preprocessing["standardize"]["image"]
    assert scale["mean"] == pytest.approx([pixels.mean()])
    first = everything(held)[0][0][0] * scale["std"][0] + scale["mean"][0]
    torch.testing.assert_close(first.flatten().round(), torch.from_numpy(pixels[:784].astype(np.float32)))
    colour = open_data(f"torchvision:SVHN?root={torchvision}&size=16&split=test")
    assert (colour.task.inputs[0].shape, colour.task.classes) == ((3, 16, 16), tuple("0123456789"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("MNIST?root={}&split=tst", "split=tst: must be one of train, test"),
        ("MNIST", "say where its files are, or shall be: root=FOLDER"),
        ("MNITS?root={}", "no data set 'MNITS'; did you mean MNIST?"),
        ("MNIST?root=elsewhere", "Dataset not found. You can use download=True to download it (download=true"),
        ("MNIST?root={}&download=true", "no network"),
        ("MNIST?root={}&download=maybe", "download=maybe: must be true or false"),
        ("CIFAR10?root={}", "keeps CIFAR10 as pickles, which are never loaded; the same images without: --data 'hf:"),
    ],
)
def test_refuses_bad_sources_of_torchvision(source: str, message: str, torchvision: Path) -> None:
    """Through the stand-in, whose errors are torchvision's own."""
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(f"torchvision:{source.format(torchvision)}")


def test_torchvision_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs the package torchvision: pip install torchvision"):
        open_data("torchvision:MNIST?root=somewhere")
