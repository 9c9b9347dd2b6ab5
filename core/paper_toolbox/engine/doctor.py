"""What this machine offers, found by trying it: versions, devices, providers, plugins."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from .. import catalog
from ..errors import PluginError
from ..host import Host
from .onnx.provider import probe
from .onnx.session import PROVIDERS

PACKAGES = (
    "paper-toolbox-core",
    "paper-toolbox",
    "torch",
    "numpy",
    "accelerate",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "onnxruntime",
)
INTEGER_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
COMPILERS = ("c++", "g++", "clang++")


def doctor(check_plugins: bool = False) -> dict[str, Any]:
    """Findings as JSON can write them; ``check_plugins`` also imports every plugin."""
    return {
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu(),
        "gpus": gpus(),
        "compiler": compiler(),
        "providers": providers(),
        "plugins": plugins(check_plugins),
    }


def versions() -> dict[str, str | None]:
    """Python and the packages that decide results; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def cpu() -> dict[str, Any]:
    """Model, cores, memory, and ``vnni``: whether 8-bit products are added up in one instruction."""
    info = _cpu_info()
    flags = set(info.get("flags", info.get("Features", "")).replace("avx512vnni", "avx512_vnni").split())
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "flags": [flag for flag in INTEGER_FLAGS if flag in flags],
        "vnni": bool(flags & {"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"}) if flags else None,
    }


def _cpu_info() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where the system has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def gpus() -> list[dict[str, Any]]:
    """GPUs that torch sees."""
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found.append({"name": device.name, "memory_gb": round(device.total_memory / 2**30, 1)})
    if torch.backends.mps.is_available():
        found.append({"name": "Apple GPU (mps)", "memory_gb": None})
    return found


def compiler() -> str | None:
    """The C++ compiler that the compiled engine of optimizers needs on a CPU."""
    return next((path for name in (os.environ.get("CXX"), *COMPILERS) if name and (path := shutil.which(name))), None)


def providers() -> dict[str, str]:
    """``ok`` after a real session of one node, else why not."""
    return {name: probe(name) or "ok" for name in PROVIDERS}


def plugins(check: bool) -> dict[str, Any]:
    """How many methods are installed by how many packages; with ``check``, which of them fail to import and why."""
    host, broken = Host(), {}
    for card in catalog.cards() if check else ():
        try:
            host.load(card)
        except PluginError as error:
            broken[card.package] = str(error)
    packages = {card.package for card in catalog.cards()}
    found: dict[str, Any] = {"methods": len(catalog.cards()), "packages": len(packages)}
    return found | ({"broken": broken} if check else {})
