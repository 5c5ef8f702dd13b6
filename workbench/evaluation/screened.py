"""What a run's record says of the text it was trained on: what filters and decontamination took, and what overlaps.

Promises counts alone, read from what was written when the data were prepared and from the flags of the scores; a run
without filters, decontamination or items that could be contaminated has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from workbench.data.answers import Answers
from workbench.data.decontamination import read_contamination
from workbench.data.filters.applying import read_applied
from workbench.data.prepared import Prepared
from workbench.data.taught import taught
from workbench.evaluation.searched import is_searched
from workbench.evaluation.tasks import Evaluation
from workbench.records import CONTAMINATED, Flagged, Screening, Sieved, flagged_rows


def screen(
    prepared: Prepared, answers: Sequence[Answers], evaluation: Evaluation, scores: pa.Table
) -> Screening | None:
    """Return the counts of one run; None where there is nothing to count.

    Args:
        prepared: What it was trained on.
        answers: What it was fine-tuned on.
        evaluation: What it was asked.
        scores: Its answers; of a run without any, without rows.

    Raises:
        DataError: if what was written beside the prepared data is damaged.
    """
    asked = [task.label for task in evaluation.tasks if is_searched(task)] if len(scores) else []
    found = Screening(
        text=(*_documents(prepared), *_examples(prepared, answers)),
        items=tuple(_flagged(label, scores) for label in asked),
    )
    return found if found.text or found.items else None


def _documents(prepared: Prepared) -> list[Sieved]:
    if prepared.folder is None:
        return []
    told = [
        Sieved(by=f"filter: {one.kind}", before=one.before.documents, after=one.after.documents, overlapping=None)
        for one in read_applied(prepared.folder)
    ]
    if (found := read_contamination(prepared.folder)) is not None:
        by = f"decontamination: {found.action}"
        told.append(Sieved(by=by, before=found.documents, after=found.kept, overlapping=found.overlapping))
    return told


def _examples(prepared: Prepared, answers: Sequence[Answers]) -> list[Sieved]:
    if prepared.decontamination is None:
        return []
    by = f"decontamination of examples: {'flag' if prepared.decontamination.action == 'flag' else 'remove'}"
    told = [taught(one, prepared) for one in answers]
    return [Sieved(by=by, before=one.of, after=one.of - one.left_out, overlapping=one.overlapping) for one in told]


def _flagged(label: str, scores: pa.Table) -> Flagged:
    rows = scores.filter(pc.equal(scores["task"].cast(pa.string()), label))
    flagged = rows.filter(flagged_rows(rows, CONTAMINATED))
    asked, found = (len(set(one["item"].cast(pa.string()).to_pylist())) for one in (rows, flagged))
    return Flagged(task=label, items=asked, contaminated=found)
