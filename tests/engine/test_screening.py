"""What a record says of its text: what filters and decontamination took, documents and examples, and what overlaps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.errors import DataError
from workbench.examining import examine, read_tasks
from workbench.opening import open_asked
from workbench.records import CONTAMINATED, Flagged, Record, Screening, Sieved
from workbench.reporting.describing import describe_screening
from workbench.running import Runner
from workbench.session import Session, open_session
from workbench.tracking import _metrics

ITEM = "Which of the many animals that live in the sea and breathe air is the largest"
ARMS = """
from workbench.data.answers import Answers
from workbench.data.benchmarks import Benchmark
from workbench.data.decontamination import Decontamination
from workbench.data.filters import RandomDrop
from workbench.evaluation.tasks import BenchmarkItems
from workbench.training.recipe import FineTuning
asked = Benchmark(name="arc_easy", path={questions!r})
tuned = BASELINE.vary(
    stages=(*BASELINE.stages, FineTuning(answers=Answers(path={answers!r}, held_out=0), tokens=256, batch=4)),
    evaluation=Evaluation(tasks=(BitsPerByte(documents=4, bytes_per_document=400), BenchmarkItems(benchmark=asked))),
)
def arm(name, **fields):
    return Arm(name=name, axis=tuple("data." + field for field in fields), configuration=tuned.vary(
        **{{"data__" + field: held for field, held in fields.items()}}))
SWEEP = SWEEP.model_copy(update={{"baseline": tuned, "secondary": (), "arms": (
    arm("removed", filters=(RandomDrop(keep=0.5),), decontamination=Decontamination(benchmarks=(asked,))),
    arm("flagged", decontamination=Decontamination(benchmarks=(asked,), action="flag")),
)}})
"""


@pytest.fixture
def session(sweep_file: Path, corpus: Path, tmp_path: Path) -> Session:
    seen = " ".join(corpus.read_text().split("<|endoftext|>")[0].split()[:20])
    rows = [
        {"id": name, "question": question, "choices": {"text": ["yes", "no"], "label": ["A", "B"]}, "answerKey": "A"}
        for name, question in (("whales", ITEM), ("speech", seen), ("new", "Is there ever anything new to be said?"))
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [{"prompt": f"{number} + 1?", "answer": str(number + 1)} for number in range(20)]
    told.append({"prompt": ITEM, "answer": "Yes."})
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    files = {"questions": str(tmp_path / "questions.jsonl"), "answers": str(tmp_path / "answers.jsonl")}
    sweep_file.write_text(sweep_file.read_text() + ARMS.format(**files))
    return open_session(str(sweep_file), tmp_path / "home")


def run(session: Session, arm: str) -> tuple[Record, set[str]]:
    """Run the first cell of an arm; return its record and the names of its flagged items."""
    record = Runner(session.plan, session.store).run(next(cell for cell in session.plan.trials if cell.arm == arm))
    rows = session.store.scores(record).to_pylist()
    return record, {row["item"] for row in rows if row["flags"] & CONTAMINATED}


def test_a_record_counts_what_was_taken_and_which_items_are_in_the_text(session: Session) -> None:
    baseline, flagged_then = run(session, "baseline")
    assert flagged_then == {"whales", "speech"}
    assert baseline.screening == Screening(text=(), items=(Flagged(task="arc_easy", items=3, contaminated=2),))
    flagged, found = run(session, "flagged")
    assert found == flagged_then
    assert flagged.screening is not None
    documents, examples = flagged.screening.text
    assert (documents.by, documents.overlapping, documents.before) == ("decontamination: flag", 1, documents.after)
    assert examples == Sieved(by="decontamination of examples: flag", before=21, after=21, overlapping=1)
    removed, found = run(session, "removed")
    assert found == set()
    assert removed.screening is not None
    dropped, documents, examples = removed.screening.text
    assert (dropped.by, dropped.overlapping) == ("filter: random", None)
    assert 0 < dropped.after < dropped.before
    assert (documents.before, documents.after) == (dropped.after, dropped.after - (documents.overlapping or 0))
    assert examples == Sieved(by="decontamination of examples: remove", before=21, after=20, overlapping=1)
    assert removed.screening.items[0].contaminated == 0
    assert session.store.record(removed.run_id) == removed
    told = describe_screening([baseline, flagged, removed])
    assert told is not None
    assert told.startswith("baseline: 2 of 3 items of arc_easy stand in its text; flagged: decontamination: flag kept ")
    assert "decontamination of examples: remove kept 20 of 21, 1 overlapping" in told
    counts = {metric.key: metric.value for metric in _metrics(removed, session.store.run_folder(removed.run_id))}
    assert counts["screening/items/arc_easy"] == 3
    assert counts["screening/contaminated/arc_easy"] == 0
    assert counts["screening/text.0 filter: random/after"] == dropped.after
    assert "screening/text.0 filter: random/overlapping" not in counts
    assert counts["screening/text.2 decontamination of examples: remove/overlapping"] == 1


def test_a_fine_tuned_model_evaluated_later_has_the_same_flags(session: Session, tmp_path: Path) -> None:
    record, flagged = run(session, "baseline")
    assert flagged == {"whales", "speech"}
    asking = read_tasks([f"arc_easy={tmp_path / 'questions.jsonl'}"])
    askable = open_asked(record.run_id, session.store)
    rows = examine(askable, asking, session.store, batch=2048, device="cpu").to_pylist()
    assert {row["item"] for row in rows if row["flags"] & CONTAMINATED} == flagged
    Path(askable.answers[0].path).unlink()
    with pytest.raises(DataError, match="a file of examples cannot be read"):
        examine(askable, asking, session.store, batch=2048, device="cpu")
    examine(askable, read_tasks(["swapped_words"]), session.store, batch=2048, device="cpu")


def test_a_declaration_changes_the_identity_of_fine_tuning_and_only_where_it_leaves_examples_out(
    session: Session,
) -> None:
    from workbench.identity import SCHEMA, digest

    for name, marked in (("baseline", []), ("flagged", []), ("removed", ["examples searched"])):
        configuration = session.plan.arm(name).configuration
        trial = next(cell for cell in session.plan.trials if cell.arm == name)
        fingerprint = configuration.data.fingerprint()  # type: ignore[union-attr]
        stage, identity = configuration.stages[1], configuration.data.identity(fingerprint)  # type: ignore[union-attr]
        chain = (trial.lineage[0], configuration.architecture, stage, identity, trial.seeds)  # type: ignore[union-attr]
        assert trial.lineage[1] == digest(SCHEMA, *chain, *marked)


def test_a_run_without_anything_to_count_says_nothing(sweep_file: Path, tmp_path: Path) -> None:
    session = open_session(str(sweep_file), tmp_path / "home")
    record = Runner(session.plan, session.store).run(session.plan.trials[0])
    assert record.screening is None
    assert describe_screening([record]) is None
