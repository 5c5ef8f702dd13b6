"""Which weights of a run should be scored, and does the score depend on the step at which the run happens to end?

The constant rate leaves a model in motion, where another checkpoint might have been luckier; a falling one calms it.
The best weights by training loss are chosen without a look at held-out text. The report's `trajectory.md` takes the
noise between checkpoints apart from that between seeds (Heineman et al. 2025 rank benchmarks by it).
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from workbench.sweep import Arm, Sweep
from workbench.training.recipe import Constant, Cosine, KeepBest

# At the paper's size: LAPTOP.vary(architecture=preset("stlm-50m").architecture), with its corpus and budget.
CONSTANT = LAPTOP.vary(
    stages__0__schedule=Constant(),
    stages__0__checkpoints=15,
    stages__0__keep_best=KeepBest(points=3),
    evaluation__trajectory=3,
)

SWEEP = Sweep(
    question="At a constant rate, is a run's end worth less than its best weights, or than the end of a falling one?",
    baseline=CONSTANT,
    baseline_name="constant, the last",
    arms=(
        Arm(name="constant, the best", axis="evaluation.checkpoint", configuration=CONSTANT.vary(checkpoint="best")),
        Arm(
            name="cosine, the last", axis="stages.0.schedule", configuration=CONSTANT.vary(stages__0__schedule=Cosine())
        ),
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
