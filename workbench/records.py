"""The record of one run and its item scores: what training and evaluation hand to everything that reads.

A record is plain JSON and never needs the classes that made it. A run that diverged or failed is a record with that
status, never a 0.0 and never a silent gap. Scores are one row per (task, view, metric, item); means are taken by the
statistics and nowhere before.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from workbench.errors import DataError, NotFinite
from workbench.identity import SCHEMA, Spec, added, setting

TEXT = pa.dictionary(pa.int32(), pa.string())
SCORES = pa.schema(
    [
        ("score_id", TEXT),
        ("task", TEXT),
        ("view", TEXT),
        ("metric", TEXT),
        ("item", TEXT),
        ("cluster", TEXT),
        ("value", pa.float64()),
        ("weight", pa.float64()),
        ("flags", pa.uint8()),
    ]
)
CONTAMINATED, TRUNCATED = 1, 2  # bits of `flags`: in the training text; longer than the context, its beginning cut
CURVE = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),
    ]
)


class Status(StrEnum):
    """How a run ended. `diverged` is an outcome of the arm; `failed` is trouble with machine or code."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"


class Seeds(Spec):
    """The seeds of one run, one per source of variation, so that each can be crossed with the others."""

    initialisation: int
    data: int
    dropout: int

    @classmethod
    def all(cls, seed: int) -> Seeds:
        """Vary every source together, as a user who reruns with another seed does."""
        return cls(initialisation=seed, data=seed, dropout=seed)


class Numerics(Spec):
    """How the arithmetic is done: resolved once per plan, part of a run's key, never mixed within a contrast.

    Attributes:
        execution: How the seeds of an arm share a device: one after the other ("loop"), or as one stack of models.
        attention: Backend.
        precision: Of forward passes.
        device: Kind of.
        threads: Of each process.
        devices: That train one run together, each in a process of its own.
        sharded: Whether each of them keeps a share of every tensor (FSDP2), or the whole model (DDP).
        compiled: Whether training runs through torch.compile.
        recompute: Whether a block's activations are computed again in the backward pass, which changes no bit.
        matmul: What linear layers multiply in training: "same" is what `precision` says; see `training.lowbit`.
    """

    execution: Literal["loop", "stacked"] = "loop"
    attention: str
    precision: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]
    threads: int
    devices: int = added(1, ge=1)
    sharded: bool = added(False)
    compiled: bool = added(False)
    recompute: bool = setting(False, effect="efficiency")
    matmul: Literal["same", "fp8", "int8"] = added("same")


class Costs(Spec):
    """What a run cost. Seconds of wall clock; memory is the peak resident set (CPU) or peak allocation (GPU).

    `tokens` are those that led to the model. Those of steps that a rollback took back are `lost_tokens`; they count in
    FLOPs and tokens per second. Where several seeds were trained `together`, as one stack, the seconds of each are its
    share, and memory is that of the stack. `mfu_exact` is the share of the device's dense bfloat16 peak that training
    used, FLOPs counted exactly (`architectures.accounting.FORMULA`); 0 where the peak is not known, as on every CPU.
    """

    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    total_seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    tokens_per_second: float = 0.0
    mfu_exact: float = 0.0
    peak_memory_bytes: int = 0
    rollbacks: int = 0
    lost_tokens: int = 0
    together: int = 1


class Sieved(Spec):
    """What a filter, or decontamination, did to the text of a run.

    Attributes:
        by: "filter: " and its kind, or "decontamination: " and what it does.
        before: Documents, passages or examples that came in.
        after: Those that were left, pieces of documents that were cut included.
        overlapping: Of those that came in, how many share words with a benchmark; None of a filter.
    """

    by: str
    before: int
    after: int
    overlapping: int | None


class Flagged(Spec):
    """How many items of a task were asked, and how many of them stand in the text that the run was trained on."""

    task: str
    items: int
    contaminated: int


class Screening(Spec):
    """What was done to the text of a run, in the order in which it was done, and what of its evaluation is in it."""

    text: tuple[Sieved, ...]
    items: tuple[Flagged, ...]


class Record(Spec):
    """Everything known about one finished, diverged or failed run.

    `run_id` hashes (score_id, numerics) and names the run folder. `plan`, `arm` and `seed` say for whom it was first
    made; the same run may answer another plan, which finds it by `run_id`. `spec` is the resolved configuration.
    `lineage` has an entry per stage, with its rollbacks where there were any. After `paired_tokens` of training such a
    run reads other text than its seeds say and is no longer paired with its baseline (None: it is, to the end).
    `evaluations` counts how often this model had been evaluated by then, this time included, each time another way; 0
    where that was not counted. `screening` counts what filters and decontamination did to its text, and which items
    stand in it; None where there is nothing to count, or where that was not counted.
    """

    schema_version: int = SCHEMA
    source: Literal["workbench", "command", "import"] = "workbench"
    run_id: str
    plan: str
    sweep: str
    arm: str
    seed: int
    seeds: Seeds
    model_id: str | None
    score_id: str
    numerics: Numerics | None
    status: Status
    reason: str | None = None
    spec: dict[str, Any]
    lineage: list[dict[str, Any]] = Field(default_factory=list)
    paired_tokens: int | None = None
    evaluations: int = 0
    screening: Screening | None = None
    costs: Costs = Costs()
    provenance: dict[str, Any] = Field(default_factory=dict)
    scores_sha256: str | None = None


def scores_table(score_id: str, columns: dict[str, Any]) -> pa.Table:
    """Build a table of item scores from equally long columns (task, view, metric, item, cluster, value, weight).

    `cluster`, `weight` and `flags` may be left out: every item is then its own cluster, of weight 1, unflagged.

    Raises:
        NotFinite: for a value that is not finite.
        DataError: for a weight that is not positive, or a duplicated item.
    """
    count = len(columns["value"])
    filled = {"cluster": columns["item"], "weight": np.ones(count), "flags": np.zeros(count, np.uint8), **columns}
    filled["score_id"] = [score_id] * count
    table = pa.table({field.name: pa.array(filled[field.name], _storage(field.type)) for field in SCORES}).cast(SCORES)
    _refuse_bad_scores(table)
    return table


def flagged_rows(scores: pa.Table, flag: int) -> pa.ChunkedArray:
    """Say of every row of item scores whether it has a flag, `CONTAMINATED` or `TRUNCATED`."""
    return pc.not_equal(pc.bit_wise_and(scores["flags"], pa.scalar(flag, pa.uint8())), 0)


def curve_table(rows: list[dict[str, float]]) -> pa.Table:
    """Build a learning curve from its points: the columns of `CURVE`, and one of floats per further quantity."""
    further = dict.fromkeys(name for row in rows for name in row if name not in CURVE.names)
    return pa.Table.from_pylist(rows, schema=pa.schema([*CURVE, *((name, pa.float64()) for name in further)]))


def joined(curves: list[pa.Table]) -> pa.Table:
    """Return one learning curve over stages that follow each other, steps and tokens counted on."""
    rows: list[dict[str, float]] = []
    for curve in curves:
        steps, tokens = (rows[-1][name] if rows else 0 for name in ("step", "tokens"))
        rows += [
            {**point, "step": steps + point["step"], "tokens": tokens + point["tokens"]} for point in curve.to_pylist()
        ]
    return curve_table(rows)


def total_costs(stages: list[Costs], flops_per_token: float) -> Costs:
    """Return what training in stages cost in all, given the training FLOPs per token."""
    seconds, tokens = sum(one.training_seconds for one in stages), sum(one.tokens for one in stages)
    lost = sum(one.lost_tokens for one in stages)
    return Costs(
        training_seconds=seconds,
        tokens=tokens,
        tokens_per_second=(tokens + lost) / max(seconds, 1e-9),
        flops=(tokens + lost) * flops_per_token,
        mfu_exact=sum(one.mfu_exact * one.training_seconds for one in stages) / max(seconds, 1e-9),
        peak_memory_bytes=max(one.peak_memory_bytes for one in stages),
        rollbacks=sum(one.rollbacks for one in stages),
        lost_tokens=lost,
        together=max(one.together for one in stages),
    )


def empty_scores() -> pa.Table:
    """Return a table of item scores without rows: what a run that gave no answer leaves."""
    return SCORES.empty_table()


def together(tables: list[pa.Table]) -> pa.Table:
    """Return tables of item scores as one; a single one as it is."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _refuse_bad_scores(table: pa.Table) -> None:
    value, weight = table["value"].to_numpy(), table["weight"].to_numpy()
    if not np.isfinite(value).all():
        row = int(np.flatnonzero(~np.isfinite(value))[0])
        raise NotFinite("a score is not finite", where=_item(table, row), expected="a number", got=value[row])
    if not (np.isfinite(weight) & (weight > 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(weight) & (weight > 0)))[0])
        raise DataError("a weight is not positive", where=_item(table, row), expected="a number > 0", got=weight[row])
    keys = table.select(["task", "view", "metric", "item"]).cast(
        pa.schema([(name, pa.string()) for name in ("task", "view", "metric", "item")])
    )
    counts = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    repeated = [row for row in counts.to_pylist() if row["count_all"] > 1]
    if repeated:
        raise DataError(
            "an item is scored twice",
            where=", ".join(f"{row['task']}/{row['metric']}/{row['item']}" for row in repeated[:5]),
            expected="one row per (task, view, metric, item)",
            got=f"{len(repeated)} repeated items",
        )


def _item(table: pa.Table, row: int) -> str:
    return "/".join(str(table[name][row].as_py()) for name in ("task", "metric", "item"))
