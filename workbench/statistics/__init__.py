"""Verdicts from paired scores: plain arrays in, frozen contrasts out.

Promises the stated error rate over all arms of a family, an answer that depends neither on the order of the rows nor
on any random draw, and a reason wherever it withholds a verdict. Refuses duplicated, unpaired or non-finite scores;
never imputes. Needs numpy and scipy, knows nothing of files, models or trackers, and is usable alone:

>>> cells = [("a", 0, 1.0), ("a", 1, 1.1), ("b", 0, 1.3), ("b", 1, 1.5), ("a", 2, 0.9), ("b", 2, 1.2)]
>>> paired = pair(cells, baseline="a", metric="loss", higher_is_better=False)
>>> [(contrast.arm, contrast.verdict) for contrast in contrast_all(paired)]
[('b', 'worse')]

What lies around the verdict is imported from its module: `sequential` and `anytime` (looks after every seed), `guards`
(joint claims), `single` (one run each, or a target), `new_items` and `crossed` (items drawn anew), `components`,
`differences` and `signal` (where noise comes from), `power`, `calibration`, and `methods`, every other test by name.
"""

from workbench.statistics.contrasts import METHOD, Contrast, contrast_all
from workbench.statistics.guards import Claim, Guard, claim_all
from workbench.statistics.macro import EVERY_TASK, macro_average
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Cell, ItemScores, Paired, pair, run_means
from workbench.statistics.power import (
    chance_of_verdict,
    minimum_detectable_effect,
    paired_power,
    share_called_equivalent,
    upper_sd,
)
from workbench.statistics.reference import SMALLEST_SEEDS, compare_blocks, reference, seeds_needed
from workbench.statistics.student import equivalence_p, paired_t

__all__ = [
    "EVERY_TASK",
    "METHOD",
    "SMALLEST_SEEDS",
    "Cell",
    "Claim",
    "Contrast",
    "Guard",
    "ItemScores",
    "Paired",
    "chance_of_verdict",
    "claim_all",
    "compare_blocks",
    "contrast_all",
    "equivalence_p",
    "holm",
    "macro_average",
    "minimum_detectable_effect",
    "pair",
    "paired_power",
    "paired_t",
    "reference",
    "run_means",
    "seeds_needed",
    "share_called_equivalent",
    "upper_sd",
]
