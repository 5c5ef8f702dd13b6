from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from workbench.errors import DataError, StoreError
from workbench.records import SCORES, Record, Seeds, Status, empty_scores, scores_table
from workbench.store import Store


def a_record(run_id: str = "abc", status: Status = Status.FINISHED) -> Record:
    return Record(
        run_id=run_id,
        plan="p",
        sweep="s",
        arm="baseline",
        seed=0,
        seeds=Seeds.all(0),
        model_id="m",
        score_id="s",
        numerics=None,
        status=status,
        spec={"width": 1},
    )


def some_scores(*values: float) -> pa.Table:
    items = [str(item) for item in range(len(values))]
    names = {"task": ["t"] * len(values), "view": ["v"] * len(values), "metric": ["loss"] * len(values)}
    return scores_table("s", {**names, "item": items, "value": list(values)})


def test_a_committed_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.commit(a_record(), some_scores(1.0, 2.0))
    assert store.record("abc") == record
    assert store.scores(record).equals(some_scores(1.0, 2.0))
    assert store.scores(record).schema.equals(SCORES)


def test_equal_scores_have_equal_bytes(tmp_path: Path) -> None:
    one = Store(tmp_path / "a").commit(a_record(), some_scores(1.0, 0.1))
    other = Store(tmp_path / "b").commit(a_record(), some_scores(1.0, 0.1))
    assert one.scores_sha256 == other.scores_sha256


def test_a_run_without_its_record_is_not_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.commit(a_record(), some_scores(1.0))
    (store.run_folder("abc") / "record.json").unlink()
    assert store.record("abc") is None
    assert not store.holds(record)


def test_scores_that_were_changed_afterwards_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.commit(a_record(), some_scores(1.0))
    path = store.run_folder("abc") / "scores.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StoreError, match="not those of the record"):
        store.scores(record)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(a_record(), some_scores(1.0))
    path = store.run_folder("abc") / "record.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreError, match="damaged") as caught:
        store.record("abc")
    assert caught.value.details["where"] == path


def test_committing_the_same_result_twice_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.commit(a_record(), some_scores(1.0))
    assert store.commit(a_record(), some_scores(1.0)) == first
    with pytest.raises(StoreError, match="two different results"):
        store.commit(a_record(), some_scores(2.0))


def test_a_failed_run_may_be_tried_again_and_a_diverged_one_may_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(a_record("failed", Status.FAILED), empty_scores())
    assert store.commit(a_record("failed"), some_scores(1.0)).status is Status.FINISHED
    store.commit(a_record("diverged", Status.DIVERGED), empty_scores())
    with pytest.raises(StoreError, match="two different results"):
        store.commit(a_record("diverged"), some_scores(1.0))


def test_a_lock_is_held_by_one_process_and_released_by_its_death(tmp_path: Path) -> None:
    code = (
        "import sys, time; from workbench.store import Store\n"
        f"with Store({str(tmp_path)!r}).lock('cell') as mine:\n    print(mine, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "True"
        with Store(tmp_path).lock("cell") as mine:
            assert not mine
        holder.kill()
    with Store(tmp_path).lock("cell") as mine:
        assert mine


def test_a_plan_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.save_plan("h", {"hash": "h", "question": "first"})
    store.save_plan("h", {"hash": "h", "question": "second"})
    assert json.loads(path.read_text())["question"] == "first"
    assert [plan["hash"] for plan in store.plans()] == ["h"]


def test_plans_are_in_the_order_in_which_they_were_saved_even_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    store, names = Store(tmp_path), list("hbzamc")
    for name in names:
        path = store.save_plan(name, {"hash": name})
        if name == "h":
            os.utime(path, (later := path.stat().st_mtime + 3600, later))
    assert [plan["hash"] for plan in store.plans()] == names


def test_a_runtime_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        Store(tmp_path / "file" / "home").ensure_writable()
    assert "--home" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"value": [float("nan")], "item": ["a"]}, "not finite"),
        ({"value": [1.0], "item": ["a"], "weight": [0.0]}, "not positive"),
        ({"value": [1.0, 2.0], "item": ["a", "a"]}, "scored twice"),
    ],
)
def test_bad_scores_are_refused(columns: dict[str, list[object]], message: str) -> None:
    count = len(columns["value"])
    names = {"task": ["t"] * count, "view": ["v"] * count, "metric": ["loss"] * count}
    with pytest.raises(DataError, match=message):
        scores_table("s", {**names, **columns})
