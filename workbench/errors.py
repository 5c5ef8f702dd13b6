"""One exception tree, one message shape: what is wrong, where, what was expected, what was got, what to do.

Promises that a user's mistake reaches the terminal as such a message and exit code 2, never as a traceback.
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """A mistake in what the user gave us, told so that it can be mended without reading our code.

    Args:
        what: The mistake, one sentence.
        where: File, field path or arm in which it stands.
        expected: What would have been right.
        got: What stood there instead.
        fix: What to do next, preferably a command.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
    ) -> None:
        self.what = what
        self.details = {"where": where, "expected": expected, "got": got, "fix": fix}
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label + ':':<10}{value}" for label, value in self.details.items() if value is not None]
        return "\n".join(lines)


class SweepError(WorkbenchError):
    """A sweep file that cannot be loaded, or declares something impossible."""


class PlanError(WorkbenchError):
    """A sweep that loads but must not run: an undeclared difference, a plan that changed, an unusable device."""


class DataError(WorkbenchError):
    """A corpus, tokenizer or results file that cannot be used."""


class NotFinite(DataError):
    """A score that is not a number: how a diverged run shows in its evaluation."""


class StoreError(WorkbenchError):
    """A runtime folder that cannot be written, or a record that is damaged or conflicts with another."""


class StatisticsError(WorkbenchError):
    """Scores that no honest test accepts: unpaired, duplicated, non-finite, too few."""


class MissingExtra(WorkbenchError):
    """A command needs a part of the installation that is not there."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(
            f"this command needs the extra '{extra}'",
            expected=f"the Python package '{module}'",
            got="it is not installed",
            fix=f"pip install 'ablation-workbench[{extra}]'",
        )
