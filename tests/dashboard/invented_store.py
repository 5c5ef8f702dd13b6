"""A runtime folder with an invented sweep in it, written as the engine writes one; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from workbench.records import CURVE, Costs, Numerics, Record, Seeds, Status, empty_scores, scores_table
from workbench.store import Store

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
NASTY = "<b>x</b>"
EFFECTS = {"rotary": 0.0, "ALiBi": -0.041, NASTY: 0.148, "$a$ **b** :red[c]": 0.012, "half the tokens": 0.103}
TOKENS, STEPS, ITEMS = 204_800, 200, 24


def plan(arms: tuple[str, ...] = tuple(EFFECTS), seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> dict[str, Any]:
    """Return the plan of the invented sweep, with every key that the planner writes."""
    return {
        "schema_version": 1,
        "hash": "3f9c1b7a52e04d6c8a1b90e2d7f4c853",
        "sweep": "positions",
        "question": "Which position scheme <should> a *small* model of speeches use?",
        "metric": "bits_per_byte",
        "higher_is_better": False,
        "unit": "bits per byte",
        "smallest_effect": 0.03,
        "secondary": [{"metric": "accuracy", "higher_is_better": True, "unit": "", "smallest_effect": 0.02}],
        "alpha": 0.05,
        "method": "paired t with Holm correction, version 1",
        "missing": "complete blocks",
        "noise": None,
        "detectable": 2.4,
        "numerics": NUMERICS.model_dump(),
        "corpus": "9d1f" * 8,
        "seeds": list(seeds),
        "baseline": arms[0],
        "arms": [_arm(name, name == arms[0]) for name in arms],
        "trials": [
            {"cell": cell, "arm": name, "seed": seed, "run_id": f"run-{arms.index(name)}-{seed}"}
            for cell, (seed, name) in enumerate((seed, name) for seed in seeds for name in arms)
        ],
    }


def _arm(name: str, baseline: bool) -> dict[str, Any]:
    changed = {"path": "architecture.position.kind", "baseline": "rotary", "arm": name}
    return {
        "name": name,
        "axis": [] if baseline else ["architecture.position.kind"],
        "compensation": None,
        "diff": [] if baseline else [changed],
        "parameters": 754_304,
        "flops_per_token": 5.02e6,
        "flops_formula": "6 N + 12 L E T",
        "tokens": TOKENS,
        "pairing": "tokens",
        "coverage": {"total": 1.0, "without_embeddings": 1.0},
        "spec": {"architecture": {"position": {"kind": name}}},
    }


def commit(store: Store, document: dict[str, Any], trial: dict[str, Any], status: Status = Status.FINISHED) -> Record:
    """Commit one run of the plan."""
    record = a_record(document, trial, status)
    return store.commit(record, scores_of(record) if status is Status.FINISHED else empty_scores(), curve_of(record))


def a_record(document: dict[str, Any], trial: dict[str, Any], status: Status = Status.FINISHED) -> Record:
    """Return the record of one run of the plan."""
    run_id, arm, seed = trial["run_id"], trial["arm"], trial["seed"]
    return Record(
        run_id=run_id,
        plan=document["hash"],
        sweep=document["sweep"],
        arm=arm,
        seed=seed,
        seeds=Seeds.all(seed),
        model_id=f"model of {run_id}",
        score_id=f"score of {run_id}",
        numerics=NUMERICS,
        status=status,
        reason=None if status is Status.FINISHED else "the loss is not a number at step 61 of 200",
        spec={"architecture": {"position": {"kind": arm}}},
        costs=Costs(
            training_seconds=9.5, evaluation_seconds=1.2, total_seconds=11.1, tokens=TOKENS, flops=1.03e12,
            tokens_per_second=21_558.0, peak_memory_bytes=612_000_000,
        ),
        provenance={"workbench": "0.1.0", "commit": "1f6ad2c", "python": "3.11.2", "packages": {"torch": "2.13.0"}},
    )  # fmt: skip


def scores_of(record: Record) -> pa.Table:
    """Return item scores; most of the noise belongs to the item or the seed, and a little to the run."""
    common, block = np.random.default_rng(7), np.random.default_rng(100 + record.seed)
    own = np.random.default_rng([record.seed, *record.arm.encode()])
    level = 2.31 + EFFECTS.get(record.arm, 0.0) + block.normal(0, 0.02)
    bits = level + common.normal(0, 0.2, ITEMS) + own.normal(0, 0.03, ITEMS)
    right = (common.random(ITEMS) + own.normal(0, 0.1, ITEMS) > 0.35).astype(float)
    return scores_table(
        record.score_id,
        {
            "task": ["bits_per_byte"] * ITEMS + ["swapped_words"] * ITEMS,
            "view": ["context=128"] * 2 * ITEMS,
            "metric": ["bits_per_byte"] * ITEMS + ["accuracy"] * ITEMS,
            "item": [f"speech {item}" for item in range(ITEMS)] + [f"sentence {item}" for item in range(ITEMS)],
            "value": [*bits, *right],
            "weight": [*(4000.0 + 100 * np.arange(ITEMS)), *np.ones(ITEMS)],
        },
    )


def curve_of(record: Record) -> pa.Table:
    """Return a learning curve; the noise of a batch is the same in every arm under one seed."""
    steps = np.arange(1, (61 if record.status is Status.DIVERGED else STEPS) + 1)
    batches = np.random.default_rng(record.seed).normal(0, 0.12, STEPS)[: len(steps)]
    loss = 3.4 + 4.0 * np.exp(-steps / 45) + EFFECTS.get(record.arm, 0.0) * steps / STEPS + batches
    rate = 3e-3 * np.minimum(steps / 20, 1)
    columns = {"step": steps, "tokens": steps * TOKENS // STEPS, "loss": loss, "learning_rate": rate}
    return pa.table({**columns, "gradient_norm": 1 + np.exp(-steps / 30)}).cast(CURVE)


def write(
    home: Path, runs: int | None = None, lost: dict[tuple[str, int], Status] | None = None, **changes: Any
) -> tuple[Store, dict[str, Any]]:
    """Write the plan, changed as said, and its first `runs` runs (all of them for None) into a runtime folder."""
    store, document = Store(home), {**plan(), **changes}
    store.save_plan(document["hash"], document)
    for trial in document["trials"][:runs]:
        commit(store, document, trial, (lost or {}).get((trial["arm"], trial["seed"]), Status.FINISHED))
    return store, document
