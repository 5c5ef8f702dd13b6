"""Runs: one row per arm, grouped by everything except the seed; below it every single run with its costs and ids."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from dashboard import elements, measures, reading
from dashboard.reading import View
from workbench.records import Status
from workbench.reporting.describing import describe_evaluations

MEGABYTE = 1e6
LONGEST_TEXT = 2000  # characters shown of one text


def show(view: View) -> None:
    """Show the runs of a plan, grouped and one by one."""
    elements.heading(
        "Runs",
        elements.over(view),
        "Grouped by everything except the seed: mean and spread are over the seeds of an arm.",
    )
    runs = measures.single_runs(view.cells, view.run_scores(), reading.delivered(view))
    grouped = measures.grouped_runs(runs, view.arms)
    st.dataframe(
        _readable(grouped), hide_index=True, column_config=_columns(view, grouped), column_order=_order(grouped)
    )
    if told := describe_evaluations(record for _, record in view.cells if record):
        elements.quiet(told)
    lost = runs[runs["reason"].notna()]
    failures = [f"{row.arm}, seed {row.seed} {row.status}: {row.reason}" for row in lost.itertuples()]
    elements.listing("What went wrong", failures)
    with st.expander(f"All {len(runs)} runs, one by one"):
        chosen = st.multiselect("Arms", view.arms, key=f"runs {view.plan['hash']}", placeholder="All arms")
        single = runs[runs["arm"].isin(chosen)] if chosen else runs
        st.dataframe(_readable(single), hide_index=True, column_config=_columns(view, single), height="content")
        elements.quiet("The run id names the folder under runs/ and the tag workbench.run in MLflow.")
    _samples(view)


def _samples(view: View) -> None:
    """Show what the models wrote at the end of their runs, where the evaluation asks for it: a prompt at a time."""
    held = view.samples()
    prompts = list(dict.fromkeys(sample["prompt"] for samples in held.values() for sample in samples))
    if not prompts:
        return
    with st.expander("What the models write"):
        prompt = st.selectbox("Prompt", prompts, format_func=lambda text: text or "(nothing)", key="prompt")
        rows = [
            (arm, str(seed), sample["text"][:LONGEST_TEXT])
            for (arm, seed), samples in held.items()
            for sample in samples
            if sample["prompt"] == prompt
        ]
        elements.table(("Arm", "Seed", "Text"), rows, numeric=(1,))
        elements.quiet("All runs draw from the same random numbers. Nothing is scored by these texts.")


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Turn bytes into megabytes, and leave out what no run measured."""
    shown = table.assign(peak_memory_bytes=table["peak_memory_bytes"] / MEGABYTE)
    return shown.dropna(axis="columns", how="all")


def _order(grouped: pd.DataFrame) -> list[str]:
    """What is left out stands one level below, or happened to no run."""
    fates = (*map(str, Status), measures.TO_COME)
    hidden = ("runs", "training_seconds", "evaluation_seconds")
    return [name for name in grouped.columns if name not in hidden and (name not in fates or grouped[name].any())]


def _columns(view: View, table: pd.DataFrame) -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    known = {
        "arm": text("Arm", pinned="seed" in table.columns),
        "runs": number("Runs planned"),
        "finished": number("Finished"),
        "diverged": number("Diverged"),
        "failed": number("Failed"),
        measures.TO_COME: number("To come"),
        "mean": number("Mean score", format="%.4f", help=view.unit),
        "sd": number("SD over seeds", format="%.4f", help=view.unit),
        "seed": number("Seed", format="%d"),
        "status": text("Status"),
        "score": number("Score", format="%.4f", help=view.unit),
        "total_seconds": number("Wall time (s)", format="%.1f"),
        "training_seconds": number("Training (s)", format="%.1f"),
        "evaluation_seconds": number("Evaluation (s)", format="%.1f"),
        "tokens": number("Tokens", format="localized"),
        "tokens_per_second": number("Tokens/s", format="%.0f"),
        "mfu_exact": number(
            "MFU (exact FLOPs)", format="percent", help="Of the device's dense bfloat16 peak; FLOPs counted exactly"
        ),
        "flops": number("Training FLOPs", format="scientific"),
        "peak_memory_bytes": number("Peak memory (MB)", format="%.0f"),
        "rollbacks": number("Rollbacks", format="%.1f", help="How often a run went back from a spike of its loss"),
        "evaluations": number(
            "Evaluated", format="%d", help="How often the model had been evaluated by then, this time included"
        ),
        "run_id": text("Run id"),
        "mlflow_run_id": text("MLflow run id"),
        "reason": text("Reason"),
    }
    return {name: config for name, config in known.items() if name in table.columns}


if __name__ == "__main__":
    elements.follow(show)
