"""How strict should a classifier of quality be: much text, or only the text it likes best?

LokiLM filters with classifiers of quality and does not say what their thresholds are worth; a sweep of them is what its
critique asks for. `good.jsonl` and `bad.jsonl`, beside this file, are a dozen examples each (prose, and columns of
figures written out); put your own in their place. A threshold is given as the share that passes it, and every share has
its control by chance: with more tokens than a share holds, stricter also means that text is read more often.

`workbench data quality_threshold` shows how well the classifier tells the examples apart, and what it chose.
"""

from pathlib import Path

from sweeps._laptop import BITS, CHOICES, LAPTOP
from workbench.data.filters import Filter, QualityClassifier, RandomDrop
from workbench.data.prepared import Data
from workbench.sweep import Arm, Sweep, Variant

GOOD, BAD = (str(Path(__file__).with_name(f"{name}.jsonl")) for name in ("good", "bad"))
SHARES = (0.8, 0.5, 0.25)


def filtered(*filters: Filter) -> Variant:
    """Return the laptop's configuration on passages that these filters keep."""
    return LAPTOP.vary(data=Data(held_out=0.1, passages=2048, filters=filters))


CHOSEN: dict[str, Filter] = {
    **{f"best {share:.0%}": QualityClassifier(good=GOOD, bad=BAD, keep=share) for share in SHARES},
    **{f"any {share:.0%}": RandomDrop(keep=share) for share in SHARES},
}

SWEEP = Sweep(
    name="quality_threshold",
    question="How strict should a classifier of quality be, at as many tokens?",
    baseline=filtered(),
    baseline_name="all text",
    arms=tuple(Arm(name=name, axis="data.filters", configuration=filtered(one)) for name, one in CHOSEN.items()),
    seeds=5,
    metric=BITS,
    secondary=CHOICES,
)
