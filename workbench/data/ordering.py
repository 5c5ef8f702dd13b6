"""In which order documents are read, as declarations: shuffled, in shares of tokens per source, or by difficulty.

What follows from a declaration is made elsewhere: `order` has the stream of tokens and its shuffled order, `mixing` and
`curricula` the others. An order is part of what a trained model is, and no part of the prepared files, so that arms
that differ in it share one cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, field_validator, model_validator

from workbench.data.difficulty import Difficulty, Length
from workbench.errors import PlanError
from workbench.identity import Spec, setting

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Point = tuple[Annotated[float, Field(ge=0, le=1)], Share]
Points = Annotated[
    tuple[Point, ...],
    BeforeValidator(lambda held: _points(held) if isinstance(held, str) else held),
    PlainSerializer(lambda held: ", ".join(f"{_brief(share)} at {_brief(at)}" for at, share in held), when_used="json"),
]
Weight = Annotated[
    Annotated[Share, Tag("share")] | Annotated[Points, Tag("points")],
    Discriminator(lambda held: "share" if isinstance(held, int | float) else "points"),  # so that errors name one
]
PIECES = 4096  # a share that changes is held for a 4096th of training


def _points(told: str) -> list[tuple[float, float]]:
    """Read "1 at 0, 0 at 0.2"."""
    try:
        return [(float(at), float(share)) for share, at in (one.split(" at ") for one in told.split(","))]
    except ValueError:
        raise ValueError(f"expected points such as '1 at 0, 0 at 0.2', got {told!r}") from None


def _brief(number: float) -> str:
    return repr(number).removesuffix(".0")


class Shuffled(Spec):
    """Every document once, in the random order of the data seed, then all of them again in another."""

    kind: Literal["shuffled"] = "shuffled"
    planned: ClassVar[bool] = False  # whether what is read at an offset depends on the budget


class Weighted(Spec):
    """Every source of a mixture has a share of the tokens, which may change over training.

    Documents are read whole, and from first to last every source has read its share to within one document. Each is
    read in a shuffled order of its own, again and again: a source that is small for its share is read more often than
    others, and the plan says how often.

    Attributes:
        weights: For every source of the corpus, its share of the tokens relative to those of others, as in
            `{"web": 7, "code": 3}`; or points (progress, share) between which the share goes in a straight line, from
            progress 0 to 1 of the budget: `{"web": 1, "synthetic": ((0, 1), (0.2, 0))}`. Two points at one progress
            make a jump. Shares are relative to their sum at every moment. In JSON and YAML points are written as "1 at
            0, 0 at 0.2".
        control: Read the same documents, as often, with the moments at which a source comes drawn at random: shares
            then are on average the same throughout. What such an arm lacks is the schedule, and nothing else.
    """

    kind: Literal["weighted"] = "weighted"
    weights: dict[str, Weight] = setting(min_length=1)
    control: bool = setting(False)

    @field_validator("weights")
    @classmethod
    def _points_ascend(cls, weights: dict[str, float | tuple[tuple[float, float], ...]]) -> object:
        for name, held in weights.items():
            if isinstance(held, tuple) and not held:
                raise ValueError(f"{name}: expected a number or points (progress, share), got no point")
            if isinstance(held, tuple) and any(one[0] > other[0] for one, other in pairwise(held)):
                raise ValueError(f"{name}: expected points in the order of progress, got {held}")
        return weights

    @model_validator(mode="after")
    def _something_is_read_at_any_time(self) -> Weighted:
        knots, shares = self.shares(tuple(self.weights), check=True)
        if not np.all(np.isfinite(shares)):
            place = int(np.argmin(np.isfinite(shares).all(1)))
            raise ValueError(f"weights: expected a source with a share at any time, got none at {knots[place]:.3g}")
        return self

    @property
    def planned(self) -> bool:
        """Whether what is read at an offset depends on the budget."""
        return self.control or not self.constant

    @property
    def constant(self) -> bool:
        """Whether shares are the same throughout."""
        return not any(isinstance(held, tuple) for held in self.weights.values())

    def shares(self, names: Sequence[str], *, check: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return when shares change, float64[pieces + 1] from 0 to 1, and those of each piece, float64[pieces, names].

        Args:
            names: The sources, in the order of the columns.
            check: Return nan where all shares are 0, rather than dividing by it with a warning.
        """
        points = {name: held if isinstance(held, tuple) else ((0.0, held),) for name, held in self.weights.items()}
        knots = np.unique([0.0, 1.0, *(progress for held in points.values() for progress, _ in held)])
        if not self.constant:
            knots = np.unique(np.concatenate([knots, np.linspace(0, 1, PIECES + 1)]))
        middles = (knots[:-1] + knots[1:]) / 2
        shares = np.stack([np.interp(middles, *np.array(points[name]).T) for name in names], 1)
        with np.errstate(invalid="ignore" if check else "warn"):
            return knots, shares / shares.sum(1, keepdims=True)

    def tokens(self, names: Sequence[str], budget: int) -> dict[str, float]:
        """Return how many tokens of a budget every source has."""
        knots, shares = self.shares(names)
        return dict(zip(names, (budget * np.diff(knots) @ shares).tolist(), strict=True))

    def refuse_other_sources(self, names: Sequence[str], where: str) -> None:
        """Refuse weights of other sources than the corpus has.

        Raises:
            PlanError: naming both.
        """
        if set(names) != set(self.weights):
            raise PlanError(
                "an arm weighs other sources than its corpus has",
                where=f"{where}.weights",
                expected="a weight for each of " + ", ".join(names) if names else "a corpus of several sources",
                got=", ".join(self.weights),
                fix="name every source; 0 leaves one out" if names else "make data.corpus a Mixture of named sources",
            )


class Curriculum(Spec):
    """Documents by difficulty (Bengio et al. 2009), every epoch anew; ties in the random order of the data seed.

    A budget smaller than the corpus reads other text in this order than shuffled: the easiest documents only, or the
    hardest. A difference from a shuffled baseline is then one of order and selection. The control isolates the order:
    it reads the same documents as the curriculum, shuffled. So does `selection="shuffled"`: it reads the documents that
    a shuffled run of this budget does (to the last one, which the budget cuts), and its control is that run.

    Attributes:
        by: What makes a document difficult.
        direction: Which end comes first.
        pacing: None is strictly by difficulty. A number c opens the sorted documents gradually, the first c of them at
            once and after progress p of an epoch sqrt(p (1 - c^2) + c^2) of them; the next document is any of those
            that are open and not read yet in this epoch (the square-root competence of arXiv:1903.09848, section 2.2;
            there drawn with replacement over a whole run).
        selection: Which documents the part of an epoch reads in which the budget ends: those that come first in this
            order ("sorted"), or in the shuffled one ("shuffled").
        control: Read the same documents in random order instead, every epoch anew.
    """

    kind: Literal["curriculum"] = "curriculum"
    planned: ClassVar[bool] = True  # whether what is read at an offset depends on the budget
    by: Difficulty = setting(Length())
    direction: Literal["easy_first", "hard_first"] = setting("easy_first")
    pacing: float | None = setting(None, gt=0, lt=1)
    selection: Literal["sorted", "shuffled"] = setting("sorted")
    control: bool = setting(False)

    @model_validator(mode="after")
    def _shuffled_is_its_own_control(self) -> Curriculum:
        if self.control and self.selection == "shuffled":
            raise ValueError('control: expected none with selection="shuffled", whose control is Shuffled(); got True')
        return self


Order = Annotated[Shuffled | Weighted | Curriculum, Field(discriminator="kind")]
SHUFFLED = Shuffled()


def shared(one: Shuffled | Weighted | Curriculum, other: Shuffled | Weighted | Curriculum) -> str:
    """Say what two orders of one corpus have in common under one seed and budget.

    "tokens" is everything, "text" the same documents in another order, "sources" the order of documents within each
    source, and "corpus" that it is the same, of which other documents may be read.
    """
    if one == other:
        return "tokens"
    if _selecting(one) == _selecting(other):
        return "text"
    return "corpus" if "curriculum" in (one.kind, other.kind) else "sources"


def _selecting(order: Shuffled | Weighted | Curriculum) -> Spec:
    """Return an order that reads the same documents as this one."""
    if isinstance(order, Shuffled):
        return order
    if isinstance(order, Curriculum) and order.selection == "shuffled":
        return SHUFFLED
    return order.model_copy(update={"control": False})
