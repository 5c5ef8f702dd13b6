"""Checkpoints: weights, optimizer moments and position of a run, safe against a kill at any moment.

A checkpoint is a safetensors file and a JSON file that holds the SHA-256 of both; the JSON is renamed into place last.
Loading takes the newest whose hash is right, so that a truncated or damaged file costs the work since the one before
it, no more. Beside checkpoints (`step-*`) a run may keep points to go back to after a spike (`point-*`, as whole as a
checkpoint), its best weights (`best-*`) and weights on its way (`kept-*`), which are still there when it has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from workbench.errors import StoreError
from workbench.store import write_durably
from workbench.training.parallel import gathered, like

KEEP = 2


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Optimizer steps done.
        seconds: Spent.
        curve: So far, rows of `records.CURVE`.
        rollbacks: So far, see `rollback.Guard`.
        losses: Of the last steps, as many as the rule for rollbacks looks at.
        point: Steps done at the point to which a spike would take the run back.
        bests: Where the best weights stood (step, tokens, loss), see `keeping.Keeper`; before them those which are the
            best again if the run goes back.
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    point: int | None = None
    bests: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    keep: int = KEEP,
    *,
    leads: bool = True,
) -> None:
    """Write a checkpoint after `progress.step` steps; remove all but the last `keep`, and those of later steps.

    Later steps than the newest are those of a run before its rollback, or damaged. Of several devices all call this,
    and the one that leads writes.

    Raises:
        StoreError: if the disk refuses it; earlier checkpoints are left as they were.
    """
    content = pack(model, optimizer)
    if not leads:
        return
    folder.mkdir(parents=True, exist_ok=True)
    newest = _stem(folder, "step", progress.step)
    write_state(newest, content, asdict(progress))
    known = sorted(folder.glob("step-*.json"))
    place = known.index(newest.with_suffix(".json")) + 1
    for old in (*known[: max(0, place - keep)], *known[place:]):
        _remove(old)
    _remove_unneeded(folder, known[max(0, place - keep)])


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Restore the newest sound checkpoint into model and optimizer; a fresh `Progress` where there is none."""
    for stale in folder.glob(".*.part"):  # of a process that was killed while it wrote
        stale.unlink(missing_ok=True)
    for description in sorted(folder.glob("step-*.json"), reverse=True):
        found = read_state(description.with_suffix(""))
        if found is None:
            continue
        progress = Progress(**found[0])
        if _has_what_it_needs(folder, progress):
            unpack(found[1], model, optimizer)
            return progress
    return Progress()


def pack(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Return weights and optimizer moments as the content of a safetensors file."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{moment}"] = value
    return _content(tensors)


def unpack(content: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what `pack` returned back where it was."""
    tensors = load(content)
    held = model.state_dict()
    model.load_state_dict({name: like(value, held[name]) for name, value in _below(tensors, "model/").items()})
    for name, parameter in model.named_parameters():
        moments = _below(tensors, f"optimizer/{name}/")
        optimizer.state.pop(parameter, None)
        if moments:
            optimizer.state[parameter] = {key: _placed(key, value, parameter) for key, value in moments.items()}


def point_stem(folder: Path, step: int) -> Path:
    """Return where the point after `step` steps lies, without suffix."""
    return _stem(folder, "point", step)


def best_stem(folder: Path, step: int) -> Path:
    """Return where the best weights lie, which are those after `step` steps, without suffix."""
    return _stem(folder, "best", step)


def write_state(stem: Path, content: bytes, described: dict[str, Any]) -> None:
    """Write tensors and what is said of them: `described`, plain JSON, comes back from `read_state` as it is.

    Raises:
        StoreError: if the disk refuses it.
    """
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        write_durably(stem.with_suffix(".safetensors"), content)
        signed = {"sha256": _signature(content, described), **described}
        write_durably(stem.with_suffix(".json"), json.dumps(signed).encode())
    except (OSError, StoreError) as error:
        raise StoreError(
            "a checkpoint could not be written",
            where=stem.parent,
            got=error.details["got"] if isinstance(error, StoreError) else error.strerror,
            fix="make room, then run the same command again: it goes on from the checkpoint before",
        ) from None


def read_state(stem: Path) -> tuple[dict[str, Any], bytes] | None:
    """Return what is said of tensors, and the content of their file; None where either is gone or damaged."""
    try:
        described = json.loads(stem.with_suffix(".json").read_bytes())
        content = stem.with_suffix(".safetensors").read_bytes()
    except (OSError, ValueError):
        return None
    if not isinstance(described, dict) or described.pop("sha256", None) != _signature(content, described):
        return None
    return described, content


@dataclass(frozen=True)
class Kept:
    """Weights that a run kept on its way.

    Attributes:
        step: Optimizer steps done.
        tokens: Read.
        loss: Mean of the points of the training curve since the weights kept before: nats per token.
        path: Safetensors file.
    """

    step: int
    tokens: int
    loss: float
    path: Path


def kept_steps(count: int, steps: int, every: int) -> set[int]:
    """Return after which steps `count` weights are kept, evenly spaced over `steps`, on the points of the curve.

    The end is none of them, as it is kept anyway. Fewer where the curve has not as many points, one each `every` steps.
    """
    places = {min(steps, math.ceil(number * steps / (count + 1) / every) * every) for number in range(1, count + 1)}
    return places - {steps}


def keep_weights(
    folder: Path, model: nn.Module, step: int, tokens: int, curve: list[dict[str, float]], *, leads: bool = True
) -> None:
    """Keep the weights as they stand.

    Args:
        folder: Of the run.
        model: As it stands.
        step: Optimizer steps done.
        tokens: Read.
        curve: Of the run, so far.
        leads: Whether this is the device that writes; all of several call this.

    Raises:
        StoreError: if the disk refuses it.
    """
    content = pack_weights(model)
    if not leads:
        return
    folder.mkdir(parents=True, exist_ok=True)
    before = max((one.step for one in kept(folder) if one.step < step), default=0)
    losses = [row["loss"] for row in curve if before < row["step"] <= step]
    described = {"step": step, "tokens": tokens, "loss": sum(losses) / len(losses)}
    write_state(_stem(folder, "kept", step), content, described)


def kept(folder: Path) -> list[Kept]:
    """Return what a run kept on its way, earliest first; the best by a rule is kept apart, see `keeping`."""
    found = []
    for path in sorted(folder.glob("kept-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            described = _unsigned(json.loads(path.read_text()))
            found.append(Kept(**described, path=path.with_suffix(".safetensors")))
    return found


def load_kept(one: Kept, model: nn.Module) -> None:
    """Load weights that a run kept on its way.

    Raises:
        StoreError: if they are not those that were saved.
    """
    found = read_state(one.path.with_suffix(""))
    if found is None:
        raise StoreError(
            "kept weights are damaged", where=one.path, fix="remove the folder of the model; it is trained again"
        )
    load_tensors(found[1], model)


def pack_weights(model: nn.Module) -> bytes:
    """Return weights alone as the content of a safetensors file."""
    return _content(model.state_dict())


def load_tensors(content: bytes, model: nn.Module) -> None:
    """Put what `pack_weights` returned back where it was."""
    model.load_state_dict(load(content))


def save_final(folder: Path, model: nn.Module, summary: dict[str, Any], *, leads: bool = True) -> None:
    """Write the trained weights and what training cost, then drop the checkpoints that led there.

    The best weights that the summary names are kept, and no earlier ones.

    Of several devices all call this, and the one that leads writes.
    """
    content = pack_weights(model)
    if not leads:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / "final.safetensors", content)
    described = {"sha256": hashlib.sha256(content).hexdigest(), **summary}
    write_durably(folder / "final.json", json.dumps(described).encode())
    best = best_stem(folder, summary["best"]["step"]).name if summary.get("best") else ""
    for path in (*folder.glob("step-*"), *folder.glob("point-*"), *folder.glob("best-*")):
        if path.stem != best:
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
    load_tensors(content, model)
    return described


def _content(tensors: dict[str, torch.Tensor]) -> bytes:
    return bytes(save({name: gathered(value.detach()).cpu().contiguous() for name, value in tensors.items()}))


def _stem(folder: Path, kind: str, step: int) -> Path:
    return folder / f"{kind}-{step:09d}"


def _has_what_it_needs(folder: Path, progress: Progress) -> bool:
    """Say whether the point to go back to and the best weights, where a checkpoint names them, are there and sound."""
    if progress.point is not None and read_state(point_stem(folder, progress.point)) is None:
        return False
    found = ((best, read_state(best_stem(folder, best["step"]))) for best in progress.bests)
    return all(held is not None and held[0] == best for best, held in found)


def _remove_unneeded(folder: Path, oldest: Path) -> None:
    """Remove points and best weights before those that the oldest checkpoint needs."""
    try:
        progress = Progress(**_unsigned(json.loads(oldest.read_text())))
    except (OSError, ValueError, TypeError):
        return
    needed = {point_stem(folder, progress.point)} if progress.point is not None else set()
    needed |= {best_stem(folder, best["step"]) for best in progress.bests[:1]}
    for stem in needed:
        for older in folder.glob(f"{stem.name.partition('-')[0]}-*.json"):
            if older.stem < stem.name:
                _remove(older)


def _unsigned(described: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in described.items() if name != "sha256"}


def _remove(description: Path) -> None:
    description.unlink(missing_ok=True)
    description.with_suffix(".safetensors").unlink(missing_ok=True)


def _signature(content: bytes, described: dict[str, Any]) -> str:
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(content).digest() + text.encode()).hexdigest()


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _placed(moment: str, value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    # AdamW keeps its step counter on the parameter's device only when fused; on the CPU both are the same place
    placed = value.to(parameter.device) if moment != "step" or parameter.is_cuda else value
    return like(placed, parameter) if placed.shape == parameter.shape else placed
