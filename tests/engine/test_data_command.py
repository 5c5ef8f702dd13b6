"""`workbench data`: what a sweep trains on, and what its filters did, as a person reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import PlanError

FILTERED = """
from pathlib import Path
from sweeps._laptop import BITS, LAPTOP
from workbench.data.corpora import Files
from workbench.data.filters import Heuristics, NearDuplicates, RandomDrop
from workbench.data.prepared import Data
from workbench.data.tokenizer import BytePairs
from workbench.sweep import Arm, Sweep

PLAIN = Heuristics(least_words=8, commonest=None, repeated=None)

def made(*filters):
    data = Data(corpus=Files(path={corpus!r}), tokenizer=BytePairs(vocabulary=300), held_out=0.2, filters=filters)
    return LAPTOP.vary(data=data, architecture__vocabulary=300)

SWEEP = Sweep(
    name="filtered",
    question="Does less text do?",
    baseline=made(),
    arms=(
        Arm(name="some", axis="data.filters", configuration=made(RandomDrop(keep=0.6))),
        Arm(name="none twice", axis="data.filters", configuration=made(PLAIN, NearDuplicates())),
    ),
    seeds=2,
    metric=BITS,
)
"""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `workbench data` on a sweep over forty odd texts, of which one is repeated with a small change."""
    sentence = "the [bold]ship[/bold] of number {0} sailed to harbour {0} with {1} \x1b[31msailors and came home again"
    texts = [" ".join(sentence.format(number, step) for step in range(number, number + 9)) for number in range(40)]
    from workbench.data.documents import Document
    from workbench.data.splits import is_held_out

    trained = next(text for text in texts if not is_held_out(Document("", text).hash, 0.2))
    changes = (trained + f" and rested {number}" for number in range(100))
    near = [text for text in changes if not is_held_out(Document("", text).hash, 0.2)][:2]
    (tmp_path / "texts.txt").write_text("\n<|endoftext|>\n".join([*texts, *near]))
    (tmp_path / "filtered.py").write_text(FILTERED.format(corpus=str(tmp_path / "texts.txt")))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["data", "filtered.py", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_every_arm_shows_what_it_trains_on_and_why_documents_are_gone(shown: Callable[..., str]) -> None:
    told = shown()
    assert "42 distinct documents in the corpus (0 repeated ones left out)" in told
    assert "filter random kept" in told
    assert "filter near_duplicates kept" in told
    assert "dropped for near duplicate: 2" in told
    assert "[bold]ship[/bold] of number" in told
    assert "beside" in told
    assert "\x1b" not in told


def test_one_arm_shows_its_own_data_only(shown: Callable[..., str]) -> None:
    told = shown("none twice")
    assert "filter near_duplicates kept" in told
    assert "filter random" not in told
    assert shown("none twice").count("reading the corpus") == 0


def test_an_arm_that_is_not_there_is_refused_with_those_that_are(shown: Callable[..., str]) -> None:
    with pytest.raises(PlanError, match="no data to show") as refused:
        shown("nothing")
    assert "none twice" in str(refused.value)
