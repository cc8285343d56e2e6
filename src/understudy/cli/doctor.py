"""`understudy doctor`: what this installation has, for a bug report or before a long run."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from understudy._version import __version__
from understudy.cli import show
from understudy.cli.results import JsonOption
from understudy.files.atomic import cache_folder

LIBRARIES = (
    "torch diffusers transformers accelerate peft safetensors huggingface_hub pillow numpy numba"
).split()
EXTRAS = {  # extra: a distribution that it installs
    "studio": "fastapi",
    "batch": "ray",
    "metrics": "lpips",
    "faces": "dlib",
    "raft": "torchvision",
    "eightbit": "bitsandbytes",
    "film": "imageio-ffmpeg",
    "provenance": "c2pa-python",
    "heif": "pillow-heif",
}
GB = 10**9
LOW_DISK, LOW_MEMORY = 5 * GB, 4 * GB


def doctor(
    json: JsonOption = False,
) -> None:
    """Print versions, devices, memory, disk, cache and models of this installation.

    Paste the output into a bug report: it contains no user name, and the home folder is
    abbreviated to ~. Exit code 1: something is missing that a command needs.
    """
    told = {
        "understudy": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": {name: _version(name) for name in LIBRARIES},
        "extras": {name: _version(library) for name, library in EXTRAS.items()},
        "devices": _devices(),
        "memory": _memory(),
        "disk": _disk(),
        "models": _models(),
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }
    problems = _problems(told)
    show.result({**told, "problems": problems}, json, *_lines(told), *_endings(problems))
    if problems:
        raise typer.Exit(1)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    from understudy.models.precision import suited_precision

    cpu = {
        "name": "cpu",
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": suited_precision(torch.device("cpu")),
    }
    found = [cpu]
    for index in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        device = torch.device("cuda", index)
        found.append(
            {
                "name": f"cuda:{index}",
                "model": known.name,
                "memory": total,
                "memory_free": free,
                "precision": suited_precision(device),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "precision": suited_precision(torch.device("mps"))})
    return found


def _memory() -> dict[str, int]:
    """Bytes of the machine, and bytes that can be had now (Linux only)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {"total": sizes["MemTotal"], "free": sizes["MemAvailable"]}


def _disk() -> dict[str, Any]:
    cache = cache_folder()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return {
        "cache": _short(cache),
        "cache_size": size,
        "cache_free": shutil.disk_usage(there).free,
        "cache_writable": os.access(there, os.W_OK),
        "here_free": shutil.disk_usage(Path.cwd()).free,
        "here_writable": os.access(Path.cwd(), os.W_OK),
    }


def _models() -> dict[str, list[str]]:
    from understudy.models.registry import built_in, generators

    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    downloaded = sorted(hub.glob("models--*")) if hub.is_dir() else []
    names = [folder.name.removeprefix("models--").replace("--", "/") for folder in downloaded]
    return {"built_in": [*built_in(), *generators()], "downloaded": names}


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _problems(told: dict[str, Any]) -> list[str]:
    found = [f"{name} is not installed" for name, have in told["libraries"].items() if not have]
    disk, memory = told["disk"], told["memory"]
    if not disk["cache_writable"]:
        found.append(f"the cache {disk['cache']} is not writable; set UNDERSTUDY_CACHE")
    if disk["cache_free"] < LOW_DISK:
        found.append(f"the cache has {disk['cache_free'] / GB:.1f} GB free; 5 GB are recommended")
    if memory and memory["free"] < LOW_MEMORY:
        found.append(f"{memory['free'] / GB:.1f} GB of memory are free; 4 GB are recommended")
    if not told["models"]["built_in"]:
        found.append("the built-in models are missing; install the package again")
    return found


def _lines(told: dict[str, Any]) -> list[str]:
    disk, memory, models = told["disk"], told["memory"], told["models"]
    devices = [
        ", ".join(f"{key} {_amount(key, value)}" for key, value in device.items())
        for device in told["devices"]
    ]
    extras = [f"{name} {have}" for name, have in told["extras"].items() if have]
    missing = [name for name, have in told["extras"].items() if not have]
    return [
        f"understudy {told['understudy']}, Python {told['python']}, {told['system']}",
        "libraries: " + ", ".join(f"{k} {v or 'MISSING'}" for k, v in told["libraries"].items()),
        f"extras: {', '.join(extras) or 'none'}; not installed: {', '.join(missing) or 'none'}",
        *(f"device: {line.removeprefix('name ')}" for line in devices),
        *([f"memory: {_amount('memory', memory['total'])}, "
           f"{_amount('memory', memory['free'])} free"] if memory else []),
        f"cache: {disk['cache']}, {_amount('memory', disk['cache_size'])} used, "
        f"{_amount('memory', disk['cache_free'])} free",
        f"this folder: {_amount('memory', disk['here_free'])} free"
        + ("" if disk["here_writable"] else ", not writable"),
        f"models: {', '.join(models['built_in']) or 'none'}; downloaded: "
        f"{', '.join(models['downloaded']) or 'none'}",
        *(["network: off (HF_HUB_OFFLINE)"] if told["offline"] else []),
    ]  # fmt: skip


def _endings(problems: list[str]) -> list[str]:
    return [f"problem: {problem}" for problem in problems] or ["no problems found"]


def _amount(key: str, value: Any) -> str:
    return f"{value / GB:.1f} GB" if key.startswith("memory") else str(value)
