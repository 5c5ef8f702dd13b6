"""Does a small model learn more from a teacher beside the text, and by which objective?

The teacher is twice as wide and reads four times the text; it is trained once, before the first student. Its cost is
the arms' and not the baseline's: what is held equal is the text that a student reads. The paper's teachers were larger
models of others: put `HuggingFace(path="...")` or `TrainedModel(path="...")` in its place, with the same tokenizer.
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from workbench.sweep import Arm, Sweep
from workbench.training.distillation import Distillation, ForwardKL, Mean, Minimum, ReverseKL, Target
from workbench.training.recipe import AdamW
from workbench.training.teachers import Grown

SMALL = LAPTOP.architecture
TEACHER = Grown(
    architecture=SMALL.vary(width=2 * SMALL.width, feed_forward=SMALL.feed_forward.vary(width=4 * SMALL.width * 2)),
    tokens=4 * LAPTOP.pretraining.tokens,
    batch=LAPTOP.pretraining.batch,
    optimizer=AdamW(learning_rate=1e-3),
)


def distilled(objective: Target, every: int = 1) -> dict[str, Distillation]:
    """Return what an arm changes."""
    return {"distillation": Distillation(teachers=(TEACHER,), objective=objective, every=every)}


ARMS = {
    "LokiLM: least, every 4th batch": distilled(Minimum(), every=4),
    "least, every batch": distilled(Minimum()),
    "mean with the truth": distilled(Mean()),
    "forward KL, T = 2": distilled(ForwardKL(temperature=2.0)),
    "reverse KL, T = 2": distilled(ReverseKL(temperature=2.0)),
}

SWEEP = Sweep(
    question="Does a small model learn more per token of text with a teacher beside it?",
    baseline=LAPTOP,
    baseline_name="text alone",
    arms=tuple(
        Arm(name=name, axis="stages.0.distillation", configuration=LAPTOP.vary(**changes))
        for name, changes in ARMS.items()
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
