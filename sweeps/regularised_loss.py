"""Do z-loss and label smoothing change what a small model learns, or only what its loss says?

The recorded loss is the plain cross-entropy in every arm, and so is the verdict's: a term that helps must help there.
"""

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from workbench.sweep import Arm, Sweep

# At the paper's size: LAPTOP.vary(architecture=preset("stlm-50m").architecture), with its corpus and budget.
SWEEP = Sweep(
    question="Does a term beside the cross-entropy make a small model better at the cross-entropy?",
    baseline=LAPTOP,
    baseline_name="cross-entropy",
    arms=(
        *(
            Arm(name=f"z-loss {weight:g}", axis="stages.0.z_loss", configuration=LAPTOP.vary(z_loss=weight))
            for weight in (1e-4, 1e-2)
        ),
        *(
            Arm(
                name=f"label smoothing {share:g}",
                axis="stages.0.label_smoothing",
                configuration=LAPTOP.vary(label_smoothing=share),
            )
            for share in (0.05, 0.1)
        ),
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
