"""Does a batch that grows over the first tenth of the tokens teach a small model more, as LokiLM's report has it?

All arms read the same tokens in the same order and differ in how many steps they take of them: a small batch early on
buys more steps. The constant half batch tells whether it is the growth that helps, or only the steps.
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from workbench.sweep import Arm, Sweep
from workbench.training.recipe import BatchWarmup

# At the paper's size: LAPTOP.vary(architecture=preset("lokilm-1.4b").architecture), with its corpus and budget.
BASELINE = LAPTOP.vary(stages__0__batch=8)
WARMUPS = {
    "linear over a tenth": BatchWarmup(start=1),
    "linear over a half": BatchWarmup(start=1, share=0.5),
    "doubling over a half": BatchWarmup(start=1, share=0.5, shape="doubling"),
}

SWEEP = Sweep(
    question="Does warming the batch size up help a small model that reads the same tokens?",
    baseline=BASELINE,
    baseline_name="constant batch",
    arms=(
        *(
            Arm(name=name, axis="stages.0.batch_warmup", configuration=BASELINE.vary(batch_warmup=warmup))
            for name, warmup in WARMUPS.items()
        ),
        Arm(name="half the batch", axis="stages.0.batch", configuration=BASELINE.vary(stages__0__batch=4)),
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
