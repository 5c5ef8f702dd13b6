"""Which of five famous choices matter to a small model, and can five seeds tell?

A model of half a million parameters reads 98 thousand tokens of presidential speeches, with one thing changed at a
time. Two arms check the tool rather than the model: half the training tokens must come out worse, and the baseline
under other seeds must not come out different. Minutes on two CPU cores.
"""

from architectures.feedforward import SwiGLU, matched_width
from architectures.positions import Alibi, Learned, NoPosition
from architectures.presets import tiny
from workbench.configuration import Configuration
from workbench.data.prepared import Data
from workbench.evaluation.tasks import BitsPerByte, Evaluation, SwappedWords
from workbench.sweep import Arm, Compensation, Metric, Sweep
from workbench.training.recipe import AdamW, Pretraining

BASELINE = Configuration(
    architecture=tiny(),
    stages=(Pretraining(tokens=98_304, batch=4, optimizer=AdamW(learning_rate=2e-3)),),
    data=Data(held_out=0.1),
    evaluation=Evaluation(tasks=(BitsPerByte(documents=24, bytes_per_document=3000), SwappedWords(items=128))),
)
GATED = SwiGLU(width=matched_width(SwiGLU, BASELINE.architecture.feed_forward, BASELINE.architecture.width))

SWEEP = Sweep(
    name="quickstart",
    question="Which architecture choices beat the noise of training in a small language model?",
    baseline=BASELINE,
    baseline_name="rotary, GELU",
    arms=(
        Arm(name="ALiBi", axis="position", configuration=BASELINE.vary(position=Alibi())),
        Arm(name="learned positions", axis="position", configuration=BASELINE.vary(position=Learned())),
        Arm(name="no positions", axis="position", configuration=BASELINE.vary(position=NoPosition())),
        Arm(
            name="SwiGLU",
            axis="feed_forward.kind",
            compensation=Compensation(path="feed_forward.width", holds="parameters"),
            configuration=BASELINE.vary(feed_forward=GATED),
        ),
        Arm(name="half the tokens", axis="stages.0.tokens", configuration=BASELINE.vary(tokens=49_152)),
        Arm(name="same again (A/A)", axis="seeds", seed_offset=1000, configuration=BASELINE),
    ),
    seeds=5,
    noise=0.031,  # upper bound of one run's noise in results/quickstart
    metric=Metric(name="bits_per_byte", smallest_effect=0.02),
    secondary=(Metric(name="accuracy", smallest_effect=0.02), Metric(name="margin", smallest_effect=0.5)),
)
