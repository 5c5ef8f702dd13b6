"""Checkpoints: weights, optimizer moments and position of a run, safe against a kill at any moment.

A checkpoint is a safetensors file and a JSON file that names its SHA-256; the JSON is renamed into place last.
Loading takes the newest whose hash is right, so that a truncated or damaged file costs the work since the one before
it, no more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from workbench.errors import StoreError
from workbench.store import write_durably

KEEP = 2


@dataclass
class Progress:
    """Where a run stands: optimizer steps done, seconds spent, and the curve so far (rows of `records.CURVE`)."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint after `progress.step` steps and remove all but the last two.

    Raises:
        StoreError: if the disk refuses it; earlier checkpoints are left as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{moment}"] = value
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    stem = folder / f"step-{progress.step:09d}"
    write_durably(stem.with_suffix(".safetensors"), content)
    described = {"sha256": hashlib.sha256(content).hexdigest(), **asdict(progress)}
    write_durably(stem.with_suffix(".json"), json.dumps(described).encode())
    for old in sorted(folder.glob("step-*.json"))[:-KEEP]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore the newest sound checkpoint into model and optimizer; a fresh `Progress` where there is none."""
    for description in sorted(folder.glob("step-*.json"), reverse=True):
        try:
            described = json.loads(description.read_text())
            content = description.with_suffix(".safetensors").read_bytes()
        except (OSError, ValueError):
            continue
        if hashlib.sha256(content).hexdigest() != described.pop("sha256", None):
            continue
        tensors = load(content)
        model.load_state_dict(_below(tensors, "model/"))
        for name, parameter in model.named_parameters():
            moments = _below(tensors, f"optimizer/{name}/")
            if moments:
                optimizer.state[parameter] = {key: _placed(key, value, parameter) for key, value in moments.items()}
        return Progress(**described)
    return Progress()


def save_final(folder: Path, model: nn.Module, summary: dict[str, Any]) -> None:
    """Write the trained weights and what training cost, then drop the checkpoints that led there."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    write_durably(folder / "final.safetensors", content)
    described = {"sha256": hashlib.sha256(content).hexdigest(), **summary}
    write_durably(folder / "final.json", json.dumps(described).encode())
    for path in folder.glob("step-*"):
        path.unlink(missing_ok=True)


def load_final(folder: Path, model: nn.Module) -> dict[str, Any] | None:
    """Load trained weights into `model` and return the summary saved with them; None where training has not ended.

    Raises:
        StoreError: if the weights are not those that were saved.
    """
    try:
        described: dict[str, Any] = json.loads((folder / "final.json").read_text())
        content = (folder / "final.safetensors").read_bytes()
    except FileNotFoundError:
        return None
    expected, actual = described.pop("sha256"), hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise StoreError(
            "trained weights are damaged",
            where=folder / "final.safetensors",
            expected=expected,
            got=actual,
            fix="remove the folder; the model is trained again",
        )
    model.load_state_dict(load(content))
    return described


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _placed(moment: str, value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    # AdamW keeps its step counter on the parameter's device only when fused; on the CPU both are the same place
    return value.to(parameter.device) if moment != "step" or parameter.is_cuda else value
