"""Models of four million parameters on Wikipedia: does grammar come with ten times the text?

Wants two files beside it: `wikipedia.txt`, 45 MB of articles separated by lines of <|endoftext|>, and `blimp.jsonl`,
the minimal pairs of BLiMP (arXiv:1912.00582) as its authors publish them, one file after the other.
"""

from pathlib import Path

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.feedforward import SwiGLU
from architectures.positions import Rotary
from workbench.configuration import Configuration
from workbench.data.benchmarks import Benchmark
from workbench.data.corpora import Files
from workbench.data.prepared import Data
from workbench.data.tokenizer import BytePairs
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation
from workbench.sweep import Arm, Metric, NumericsRequest, Sweep
from workbench.training.optimizers import AdamW
from workbench.training.recipe import Pretraining
from workbench.training.schedules import Linear

HERE = Path(__file__).resolve().parent


def stages(tokens: int) -> tuple[Pretraining]:
    """Return one stage that reads so many tokens, its learning rate falling to zero at the end."""
    return (Pretraining(tokens=tokens, batch=8, optimizer=AdamW(learning_rate=3e-3), schedule=Linear(floor=0.0)),)


BASELINE = Configuration(
    architecture=Architecture(
        width=192,
        layers=5,
        context=128,
        vocabulary=6144,
        position=Rotary(),
        attention=MultiHead(heads=6),
        feed_forward=SwiGLU(width=512),
        embedding=Table(tied=False),
    ),
    stages=stages(500_000),
    data=Data(
        corpus=Files(path=str(HERE / "wikipedia.txt")),
        tokenizer=BytePairs(vocabulary=6144),
        held_out=0.02,
        passages=512,
    ),
    evaluation=Evaluation(
        tasks=(
            BitsPerByte(documents=24, bytes_per_document=4000),
            BenchmarkItems(benchmark=Benchmark(name="blimp", path=str(HERE / "blimp.jsonl"), items=13_400)),
        )
    ),
)
SWEEP = Sweep(
    name="grammar",
    question="Does grammar come with ten times the text?",
    baseline=BASELINE,
    baseline_name="half a million tokens",
    arms=(Arm(name="five million tokens", axis="stages", configuration=BASELINE.vary(stages=stages(5_000_000))),),
    seeds=3,
    metric=Metric(name="blimp/accuracy", smallest_effect=0.02),
    secondary=(
        Metric(name="blimp/margin", smallest_effect=0.25),
        Metric(name="bits_per_byte", smallest_effect=0.02),
    ),
    numerics=NumericsRequest(threads=1),
)
