"""MFU: measured where a device's peak is known, by one formula, and the mean over the time of all stages."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from architectures.accounting import flops_per_token
from architectures.compute import device_named
from architectures.presets import tiny
from dashboard import measures
from dashboard.views.runs import _readable
from tests.reporting.invented_sweep import record
from workbench.records import Costs, Numerics, total_costs
from workbench.training.numerics import utilised

ON_GPU = Numerics(attention="sdpa", precision="bfloat16", device="cuda", threads=1)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_run_on_a_known_gpu_uses_a_share_of_its_peak_by_exact_flops(monkeypatch, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    peak = device_named("H100 SXM").peak
    found = utilised(1e6, tiny(), ON_GPU.model_copy(update={"devices": devices}))
    assert found == pytest.approx(1e6 * flops_per_token(tiny()).training / peak / devices)


def test_nothing_is_claimed_of_a_cpu_or_an_unknown_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device of next year")
    assert utilised(1e6, tiny(), ON_GPU) == 0
    assert utilised(1e6, tiny(), ON_GPU.model_copy(update={"device": "cpu"})) == 0


def test_stages_count_by_the_time_they_took() -> None:
    stages = [
        Costs(training_seconds=30, tokens=300, mfu_exact=0.4),
        Costs(training_seconds=10, tokens=100, mfu_exact=0.2),
    ]
    assert total_costs(stages, 1.0).mfu_exact == pytest.approx(0.35)


@pytest.mark.parametrize("share", [0.43, 0.0])
def test_the_dashboard_has_a_column_for_it_only_where_it_was_measured(share: float) -> None:
    held = record("baseline", 0, costs=Costs(total_seconds=12.0, tokens=204_800, mfu_exact=share))
    runs = measures.single_runs([({"arm": "baseline", "seed": 0, "run_id": held.run_id}, held)], {}, {})
    for table in (runs, measures.grouped_runs(runs, ["baseline"])):
        assert _readable(table).get("mfu_exact", default=pd.Series([None])).tolist() == [share or None]
