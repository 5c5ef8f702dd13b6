"""Verdicts from paired scores: plain arrays in, frozen contrasts out.

Promises the stated error rate over all arms of a family, an answer that depends neither on the order of the rows nor
on any random draw, and a reason wherever it withholds a verdict. Refuses duplicated, unpaired or non-finite scores;
never imputes. Needs numpy and scipy, knows nothing of files, models or trackers, and is usable alone:

>>> cells = [("a", 0, 1.0), ("a", 1, 1.1), ("b", 0, 1.3), ("b", 1, 1.5), ("a", 2, 0.9), ("b", 2, 1.2)]
>>> paired = pair(cells, baseline="a", metric="loss", higher_is_better=False)
>>> [(contrast.arm, contrast.verdict) for contrast in contrast_all(paired)]
[('b', 'worse')]
"""

from workbench.statistics.contrasts import Contrast, contrast_all
from workbench.statistics.multiplicity import holm
from workbench.statistics.pairing import Cell, ItemScores, Paired, pair, run_means
from workbench.statistics.power import (
    chance_of_verdict,
    minimum_detectable_effect,
    paired_power,
    share_called_equivalent,
)
from workbench.statistics.student import equivalence_p, paired_t

__all__ = [
    "Cell",
    "Contrast",
    "ItemScores",
    "Paired",
    "chance_of_verdict",
    "contrast_all",
    "equivalence_p",
    "holm",
    "minimum_detectable_effect",
    "pair",
    "paired_power",
    "paired_t",
    "run_means",
    "share_called_equivalent",
]
