"""What only reads metadata imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pydantic", "onnx", "onnxruntime", "accelerate", "matplotlib", "sklearn", "pandas")
TELL = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules, file=sys.stderr)); "
COMMAND = "sys.argv = ['toolbox', *{words!r}]; from paper_toolbox_cli.app import main; main()"


def loaded(code: str) -> set[str]:
    """The heavy packages that ``code`` leaves imported."""
    done = subprocess.run([sys.executable, "-c", TELL + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.partition("LOADED ")[2].split()) & set(HEAVY)


@pytest.mark.parametrize("module", ["errors", "method", "kinds", "needs", "catalog", "host", "recipe", "artifact"])
def test_light_modules(module: str) -> None:
    assert not loaded(f"import paper_toolbox.{module}")


def test_the_package_itself_and_its_cards() -> None:
    assert not loaded(
        "import paper_toolbox.registry as r; from paper_toolbox import catalog; catalog.cards(); r.entries()"
    )


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "--json"], ["search", "adam"], ["info", "adamp"]])
def test_commands_that_read_metadata(words: list[str]) -> None:
    assert not loaded(COMMAND.format(words=words))


@pytest.mark.parametrize(
    "command", ["train", "compress", "export", "run", "attribute", "measure", "check", "new", "parity", "why"]
)
def test_help_of_commands_that_work(command: str) -> None:
    assert not loaded(COMMAND.format(words=[command, "--help"]))


def test_pydantic_comes_with_the_first_method_and_torch_with_its_plugin() -> None:
    assert {"torch", "pydantic"} <= loaded("import paper_toolbox as pt; pt.method('cross_entropy')")
