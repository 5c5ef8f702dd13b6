"""An invented sweep with every kind of outcome, as a plan and its records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from workbench.records import Costs, Numerics, Record, Seeds, Status, scores_table

NUMERICS = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
EFFECTS = {
    "rotary": 0.0,
    "alibi": -0.041,
    "learned": 0.148,
    "none": 0.012,
    "swiglu": -0.018,
    "half tokens": 0.103,
    "rotary again": 0.0,
}
DIFFS = {
    "alibi": [
        {"path": "architecture.position.kind", "baseline": "rotary", "arm": "alibi"},
        {"path": "architecture.position.base", "baseline": 10000.0, "arm": None},
    ],
    "learned": [
        {"path": "architecture.position.kind", "baseline": "rotary", "arm": "learned"},
        {"path": "architecture.position.base", "baseline": 10000.0, "arm": None},
    ],
    "none": [
        {"path": "architecture.position.kind", "baseline": "rotary", "arm": "none"},
        {"path": "architecture.position.base", "baseline": 10000.0, "arm": None},
    ],
    "swiglu": [
        {"path": "architecture.feed_forward.kind", "baseline": "gelu", "arm": "swiglu"},
        {"path": "architecture.feed_forward.width", "baseline": 384, "arm": 256},
    ],
    "half tokens": [{"path": "stages.0.steps", "baseline": 200, "arm": 100}],
}


def plan(arms: tuple[str, ...] = tuple(EFFECTS), seeds: tuple[int, ...] = (0, 1, 2, 3, 4)) -> dict[str, Any]:
    """Return the plan of the invented sweep."""
    return {
        "hash": "3f9c1b7a52e04d6c8a1b90e2d7f4c853",
        "sweep": "quickstart",
        "question": "Which position scheme and feed-forward network should a three-layer model of speeches use?",
        "metric": "bits_per_byte",
        "higher_is_better": False,
        "unit": "bits per byte",
        "smallest_effect": 0.03,
        "alpha": 0.05,
        "secondary": [{"metric": "accuracy", "higher_is_better": True, "unit": "", "smallest_effect": None}],
        "numerics": NUMERICS.model_dump(),
        "seeds": list(seeds),
        "corpus": "9d2f60c1",
        "baseline": arms[0],
        "arms": [_arm(name) for name in arms],
        "trials": [
            {"cell": cell, "arm": name, "seed": seed, "run_id": f"{name}-{seed}"}
            for cell, (seed, name) in enumerate((seed, name) for seed in seeds for name in arms)
        ],
    }


def _arm(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "diff": DIFFS.get(name, []),
        "axis": None,
        "compensation": "width" if name == "swiglu" else None,
        "parameters": 754_304 + (16_384 if name == "learned" else 0),
        "flops_per_token": 5.02e6,
        "tokens": 102_400 if name == "half tokens" else 204_800,
        "coverage": {"total": 0.4, "without_embeddings": 0.31}
        if name == "swiglu"
        else {"total": 1.0, "without_embeddings": 1.0},
        "pairing": "none" if name == "rotary again" else "tokens",
    }


def record(name: str, seed: int, status: Status = Status.FINISHED, **changes: Any) -> Record:
    """Return the record of one run."""
    return Record(
        **{
            "run_id": f"{name}-{seed}",
            "plan": "p",
            "sweep": "quickstart",
            "arm": name,
            "seed": seed,
            "seeds": Seeds.all(seed),
            "model_id": None,
            "score_id": f"{name}-{seed}",
            "numerics": NUMERICS,
            "status": status,
            "reason": None if status is Status.FINISHED else "the loss is not a number at step 61",
            "spec": {},
            "costs": Costs(total_seconds=12.0, tokens=204_800),
            "provenance": {"commit": "1f6ad2c"},
            **changes,
        }
    )


def records(document: dict[str, Any], lost: dict[tuple[str, int], Status] | None = None) -> list[Record]:
    """Return a record for every trial of a plan, some of them lost."""
    fates = lost or {}
    return [
        record(trial["arm"], trial["seed"], fates.get((trial["arm"], trial["seed"]), Status.FINISHED))
        for trial in document["trials"]
    ]


def scores(held: Record) -> pa.Table:
    """Return item scores of a run: four documents and three choice items; noise is shared within a seed."""
    shared = np.random.Generator(np.random.Philox(held.seed)).normal(0, 0.02, 4)
    own = np.random.Generator(np.random.Philox([held.seed, sum(held.arm.encode())])).normal(0, 0.012, 7)
    bits = 2.31 + EFFECTS.get(held.arm, 0.0) + shared + own[:4]
    return scores_table(
        held.score_id,
        {
            "task": ["documents"] * 4 + ["choices"] * 3,
            "view": ["context=128"] * 7,
            "metric": ["bits_per_byte"] * 4 + ["accuracy"] * 3,
            "item": ["a", "b", "c", "d", "x", "y", "z"],
            "value": [*bits, *(own[4:] > 0).astype(float)],
            "weight": [6000.0, 5000.0, 6000.0, 3100.0, 1.0, 1.0, 1.0],
        },
    )
