"""The doctor tries things instead of believing lists."""

import json

import pytest
from paper_toolbox import catalog
from paper_toolbox.engine import doctor as module
from paper_toolbox.engine.doctor import doctor
from paper_toolbox.errors import PluginError
from paper_toolbox.host import Host


def test_findings_are_json_and_nothing_is_printed(capfd):
    found = json.loads(json.dumps(doctor()))
    assert found["providers"]["cpu"] == "ok"
    assert found["versions"]["python"].count(".") == 2
    assert found["versions"]["torch"]
    assert found["cpu"]["cores"] >= 1
    assert found["cpu"]["model"]
    assert found["plugins"]["methods"] >= found["plugins"]["packages"] >= 1
    assert "broken" not in found["plugins"]
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_is_listed_but_cannot_load_says_why():
    found = doctor()["providers"]
    if found["cuda"] == "ok":
        pytest.skip("CUDA works here")
    assert set(found) == {"cpu", "cuda", "tensorrt"}
    assert "\n" not in found["cuda"]
    assert len(found["cuda"]) > 10


def test_vnni_is_read_from_the_flags(monkeypatch):
    monkeypatch.setattr(module, "_cpu_info", lambda: {"model name": "X", "flags": "fpu avx2 avx512_vnni"})
    assert (module.cpu()["vnni"], module.cpu()["flags"]) == (True, ["avx2", "avx512_vnni"])
    monkeypatch.setattr(module, "_cpu_info", lambda: {"flags": "fpu avx2"})
    assert module.cpu()["vnni"] is False
    monkeypatch.setattr(module, "_cpu_info", dict)
    assert module.cpu()["vnni"] is None


def test_a_broken_plugin_is_named_only_when_asked(monkeypatch):
    card = catalog.cards()[0]

    def load(self, asked):
        if asked.package == card.package:
            raise PluginError(f"{asked.package} fails to import")

    monkeypatch.setattr(Host, "load", load)
    assert doctor(check_plugins=True)["plugins"]["broken"] == {card.package: f"{card.package} fails to import"}
    assert "broken" not in doctor()["plugins"]


def test_the_compiler_named_by_the_environment_comes_first(monkeypatch):
    monkeypatch.setenv("CXX", "python3")
    assert (module.compiler() or "").endswith("python3")
    monkeypatch.setenv("PATH", "")
    assert module.compiler() is None
