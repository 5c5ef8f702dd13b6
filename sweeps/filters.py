"""Does a small model learn more from filtered text, and more than from as much text chosen by chance?

LokiLM names deduplication, pruning by prototypes and classifiers of quality as ways to better data (section 2.2) and
ablates none. All arms train on as many tokens, here fewer than any filter keeps: they differ in what is read, not in
how often. A filter has to beat the control that drops as large a share by chance. Speeches are cut to passages of about
2 kB, so that there is something to choose among; `workbench data filters` shows what each filter chose.
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP
from workbench.data.filters import Compression, Filter, Heuristics, NearDuplicates, Prototypes, RandomDrop, SemDeDup
from workbench.data.prepared import Data
from workbench.sweep import Arm, Sweep, Variant

KEPT = 0.7
CHOSEN: dict[str, tuple[Filter, ...]] = {
    "by chance": (RandomDrop(keep=KEPT),),
    "rules of thumb": (Heuristics(),),
    "near duplicates": (NearDuplicates(threshold=0.5),),
    "SemDeDup": (SemDeDup(keep=KEPT),),
    "hard prototypes": (Prototypes(keep=KEPT, which="hard"),),
    "easy prototypes": (Prototypes(keep=KEPT, which="easy"),),
    "middling compression": (Compression(middle=KEPT),),
}


def filtered(*filters: Filter) -> Variant:
    """Return the laptop's configuration on passages that these filters keep."""
    return LAPTOP.vary(data=Data(held_out=0.1, passages=2048, filters=filters))


SWEEP = Sweep(
    question="Does a small model learn more from filtered text than from as much text chosen by chance?",
    baseline=filtered(),
    baseline_name="all text",
    arms=tuple(
        Arm(name=name, axis="data.filters", configuration=filtered(*filters)) for name, filters in CHOSEN.items()
    ),
    seeds=5,
    metric=BITS,
    secondary=CHOICES,
)
