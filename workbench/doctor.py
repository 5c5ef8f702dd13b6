"""What this machine can do: Python, torch, devices, attention backends, extras, disk, runtime folder, MLflow.

Promises to look and change nothing but a probe file that it removes; to try what it reports (a backend is said to work
after it computed), and to tell an absent option from a broken one: only what is broken is a fault.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import StoreError, WorkbenchError
from workbench.store import Store

OLDEST_PYTHON = (3, 11)
LEAST_DISK = 2 * 2**30  # bytes: the quickstart's caches, checkpoints and reports, several times over
EXTRAS = {  # extra: the modules it brings, and what it is for
    "train": (("torch", "tokenizers", "safetensors"), "train and evaluate models"),
    "track": (("mlflow", "optuna"), "run sweeps with a queue, keep results in MLflow"),
    "dashboard": (("streamlit", "plotly"), "look at results in a browser"),
    "eval": (("lm_eval", "transformers", "datasets"), "benchmarks of lm-evaluation-harness"),
    "scale": (("ray", "submitit", "psycopg"), "many machines"),
    "flash": (("flash_attn",), "attention by flash-attn"),
    "lowbit": (("torchao",), "eight-bit optimizer states and matrix products"),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        state: "ok", "absent" (an option that is not there, no fault) or "broken".
        told: What was found, and how to mend it.
    """

    name: str
    state: Literal["ok", "absent", "broken"]
    told: str


def examine(home: Path) -> Iterator[Check]:
    """Look at everything, one thing after the other.

    Args:
        home: The runtime folder.
    """
    yield _python()
    yield from _torch()
    yield from (_extra(name) for name in EXTRAS)
    yield _disk(home)
    yield _folder(home)
    yield _tracking(home)


def _python() -> Check:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", "broken", f"{found}; expected {wanted} or newer")
    return Check("python", "ok", found)


def _torch() -> Iterator[Check]:
    if importlib.util.find_spec("torch") is None:
        yield Check("torch", "absent", "results can be analyzed, nothing can be trained; " + _install("train"))
        return
    try:
        import torch
    except Exception as error:  # whatever an incomplete installation raises
        yield Check("torch", "broken", f"cannot be imported: {_first(error)}")
        return
    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield from _devices()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for backend, objection in _backends(device).items():
        trouble = objection or _tried(backend, device)
        works = trouble or "works, forward and backward"
        state: Literal["ok", "absent", "broken"] = "ok" if not trouble else "absent" if objection else "broken"
        yield Check(f"attention: {backend}", state, f"{works} ({device})")


def _devices() -> Iterator[Check]:
    import torch

    from architectures.compute import device_named

    if not torch.cuda.is_available():
        built = "built for CUDA, but no device answers" if torch.version.cuda else "this torch is built for CPUs only"
        yield Check("GPU", "absent", f"none; {built}")
        return
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        known = device_named(name)
        peak = (
            f"peak {known.peak / 1e12:g} TFLOP/s ({known.source})" if known else "peak unknown: no utilisation is told"
        )
        yield Check(f"GPU {index}", "ok", f"{name}, {memory:.0f} GiB, {peak}")


def _backends(device: str) -> dict[str, str | None]:
    """Return every backend's objection to training a plain model on this device."""
    import torch

    from architectures.presets import preset

    return preset("loki-1m").architecture.backends(device, torch.bfloat16 if device == "cuda" else torch.float32)


def _tried(backend: str, device: str) -> str | None:
    """Compute a small attention and its gradient; return what went wrong, or None."""
    import torch

    from architectures.backends import attend
    from architectures.masks import Mask, NoBias

    try:
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        wave = torch.linspace(-1, 1, 2 * 32 * 64).sin().view(1, 2, 32, 64).to(device, dtype).requires_grad_()
        got = attend(wave, wave, wave, mask=Mask(causal=True), bias=NoBias(), backend=backend)
        expected = attend(wave, wave, wave, mask=Mask(causal=True), bias=NoBias(), backend="reference")
        torch.autograd.grad(got.float().sum(), wave)
        error = (got - expected).abs().max().item()
    except Exception as failure:  # a kernel that cannot run here may fail in any way
        return f"fails: {_first(failure)}"
    return None if error < 0.05 else f"differs from the reference by {error:.2g}"


def _extra(name: str) -> Check:
    modules, purpose = EXTRAS[name]
    label = f"extra '{name}'"
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return Check(label, "absent", f"{', '.join(missing)} not installed ({purpose}); {_install(name)}")
    return Check(label, "ok", ", ".join(f"{module} {_version(module)}".strip() for module in modules))


def _version(module: str) -> str:
    for package in _packages().get(module, ()):
        return importlib.metadata.version(package)
    return ""


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _install(extra: str) -> str:
    return f"pip install 'ablation-workbench[{extra}]'"


def _disk(home: Path) -> Check:
    there = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    told = f"{free / 2**30:.1f} GiB free at {there}"
    if free < LEAST_DISK:
        return Check("disk", "broken", f"{told}; expected {LEAST_DISK / 2**30:g} GiB, or another folder by --home")
    return Check("disk", "ok", told)


def _folder(home: Path) -> Check:
    store = Store(home)
    made = [folder for folder in (store.home, *store.home.parents) if not folder.exists()]
    bare = not (store.home / ".gitignore").exists()
    try:
        store.ensure_writable()
    except StoreError as error:
        return Check("runtime folder", "broken", f"{store.home}: {error.details['got']}; {error.details['fix']}")
    if bare:  # looking must leave nothing behind
        (store.home / ".gitignore").unlink()
    for folder in made:
        folder.rmdir()
    return Check("runtime folder", "ok", f"{store.home} can be written")


def _tracking(home: Path) -> Check:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if importlib.util.find_spec("mlflow") is None:
        return Check("MLflow", "absent", f"not installed; {_install('track')}")
    if not uri:
        return Check("MLflow", "ok", "MLFLOW_TRACKING_URI is not set: an SQLite file in the runtime folder")
    trouble = _trouble(lambda: _reach(home))
    if trouble:
        return Check(
            "MLflow", "broken", f"{uri} does not answer: {trouble}; runs are kept and delivered by `sync` later"
        )
    return Check("MLflow", "ok", f"{uri} answers")


def _reach(home: Path) -> None:
    from workbench.tracking import Tracking

    Tracking(home).client.search_experiments(max_results=1)


def _trouble(act: Callable[[], object]) -> str | None:
    try:
        act()
    except WorkbenchError as error:
        return error.what
    except Exception as error:  # every way in which a server can be away
        return _first(error)
    return None


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__
