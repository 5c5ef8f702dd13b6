"""Does a small model learn more from text that goes from easy to hard, or the other way?

Difficult is text of rare words. A budget that does not reach the end of the corpus turns a curriculum into a selection:
"easiest first" never reads a hard document. So two questions are asked apart. The first two arms read the documents
of the shuffled baseline and change their order only; the others read the easiest, or the hardest, of the whole corpus,
and beside each stands its control, which reads the same documents shuffled.
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from sweeps.packing import PIECES
from workbench.data.difficulty import Rarity
from workbench.data.ordering import Curriculum
from workbench.sweep import Arm, Sweep

BASELINE = LAPTOP.vary(data=PIECES)
EASY, HARD = Curriculum(by=Rarity()), Curriculum(by=Rarity(), direction="hard_first")
ORDERS = {
    "easy first": EASY.model_copy(update={"selection": "shuffled"}),
    "hard first": HARD.model_copy(update={"selection": "shuffled"}),
    "easiest only, easy first": EASY,
    "easiest only, shuffled": EASY.model_copy(update={"control": True}),
    "hardest only, hard first": HARD,
    "hardest only, shuffled": HARD.model_copy(update={"control": True}),
}

SWEEP = Sweep(
    question="Does a small model learn more from text in the order of its difficulty than from shuffled text?",
    baseline=BASELINE,
    baseline_name="shuffled",
    arms=tuple(
        Arm(name=name, axis="data.order", configuration=BASELINE.vary(data__order=order))
        for name, order in ORDERS.items()
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
