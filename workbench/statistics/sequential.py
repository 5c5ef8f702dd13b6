"""Sequential seeds: look at the arms after every block of seeds and stop those that are decided.

Promises the family-wise error of the fixed design over all looks together: better or worse, and equivalent, each as a
step-down family of its own that the other does not shrink. The statistic of a look is that of the default test (see
`blocks`) on the arms still running; arms that stopped leave their residual variance behind. Everything is a pure
function of the scores, so that whoever holds the records replays the same stops. Refuses to look before the fourth
seed, to let a diverged seed count for the side it happened to, and to judge without noise between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from workbench.errors import StatisticsError
from workbench.statistics.blocks import Left
from workbench.statistics.boundaries import FIRST_LOOK, Design, boundaries
from workbench.statistics.looks import Look, look

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
State = Literal["running", "better", "worse", "equivalent", "futile", "undecided"]

RUNNING, ABOVE, BELOW, EQUIVALENT, FUTILE = range(5)  # what `follow` says of an arm

METHOD = "group-sequential seed-block bootstrap with step-down correction, version 1"  # part of a plan's hash
FUTILE_LOOK, FUTILE_CHANCE = 6, 0.10
FORECASTS = 2_000
_KEY = 0x5EEDB10E


class Course(NamedTuple):
    """How every arm of every data set went: [..., arms] each, all as of the look at which the arm stopped.

    Attributes:
        state: int8, one of RUNNING (undecided, if the last look is over), ABOVE, BELOW, EQUIVALENT and FUTILE.
        seeds: int64, blocks at the look the numbers are from; 0 before the first.
        estimate: Mean difference, arm minus baseline.
        low: Lower end of the repeated simultaneous interval.
        high: Upper end.
        p: Nominal p-value of the difference.
        boundary: What it was compared with.
    """

    state: NDArray[np.int8]
    seeds: NDArray[np.int64]
    estimate: Array
    low: Array
    high: Array
    p: Array
    boundary: Array


class Forecast(NamedTuple):
    """How a design goes on average.

    Attributes:
        runs: Runs used, the baseline's included.
        found: Share of the arms that differ which are called so.
        equivalent: Share of them called equivalent.
    """

    runs: float
    found: float
    equivalent: float


@dataclass(frozen=True)
class Standing:
    """How one arm stands. Differences are arm minus baseline, in units of the scores.

    Attributes:
        state: "running" while further seeds may decide it, "undecided" after the last.
        seeds: Complete pairs at the arm's last look; 0 before the first look.
        estimate: Mean difference at that look; None before.
        low: Lower end of the repeated simultaneous interval; None before the first look and without noise.
        high: Upper end.
        p: Nominal p-value of "no difference".
        boundary: What it was compared with.
        cut: The interval was cut at zero, which the steps reject and the interval, which takes none, does not.
        blocked: Why a verdict is withheld whatever the numbers say.
    """

    state: State
    seeds: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    boundary: float | None = None
    cut: bool = False
    blocked: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether the arm needs no further seed, be it as decided or as futile."""
        return self.state not in ("running", "undecided")


class Progress(NamedTuple):
    """Where a sequential sweep stands.

    Attributes:
        arms: One standing per arm.
        asked: bool[1 + arms, seeds], the runs the design has asked for so far: those of the next block, and none of an
            arm after its stop.
        over: Nothing more is asked.
    """

    arms: tuple[Standing, ...]
    asked: Mask
    over: bool


def follow(scores: Array, design: Design) -> Course:
    """Follow many data sets at once through all looks their seeds allow.

    Args:
        scores: float64[..., 1 + arms, seeds], blocks in the order they were run, baseline in row 0 and finite; NaN
            where an arm lost a seed. Scores of an arm after its stop are not looked at.
        design: The design; `scores` may hold fewer seeds than it allows.
    """
    leading = scores.shape[:-2]
    flat = np.ascontiguousarray(scores, np.float64).reshape(-1, *scores.shape[-2:])
    path = _Path(len(flat), design)
    for seeds in range(FIRST_LOOK, min(flat.shape[-1], design.seeds) + 1):
        path.look(flat[..., :seeds])
    shaped: dict[str, Any] = {name: at.reshape(*leading, design.arms) for name, at in path.course._asdict().items()}
    return Course(**shaped)


@lru_cache(maxsize=256)
def forecast(design: Design, effect: float, share: float = 1.0) -> Forecast:
    """Say how a design will probably go, by following simulated sweeps of equal noise.

    Args:
        design: With a margin in residual standard deviations of one run.
        effect: True difference of the arms that differ, in the same unit.
        share: Of the arms, those that differ; the others equal the baseline. At least one does.
    """
    generator = np.random.Generator(np.random.Philox(key=_KEY))
    scores = generator.standard_normal((FORECASTS, 1 + design.arms, design.seeds))
    differing = max(1, round(share * design.arms))
    scores[:, 1 : 1 + differing] += effect
    course = follow(scores, design)
    runs = course.seeds.sum(axis=1) + course.seeds.max(axis=1)
    shares = [float((course.state[:, :differing] == state).mean()) for state in (ABOVE, EQUIVALENT)]
    return Forecast(float(runs.mean()), *shares)


@lru_cache(maxsize=64)
def minimum_detectable_effect(design: Design, power: float = 0.8) -> float:
    """Return the difference found with probability `power` where one arm has it and the others equal the baseline.

    In residual standard deviations of one run, to a hundredth, by simulation.
    """
    lower, upper = 0.0, 1.0
    one = 1 / design.arms
    while forecast(design, upper, one).found < power:
        lower, upper = upper, 2 * upper
    while upper - lower > 0.01:
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if forecast(design, middle, one).found >= power else (middle, upper)
    return round(upper, 2)


def decide(
    scores: Array, status: Sequence[Sequence[str]], design: Design, *, higher_is_better: bool = True
) -> Progress:
    """Say how every arm stands after the blocks run so far, and what to run next; replays every look from the first.

    Blocks count in their order, and only while the baseline and every running arm have ended theirs. A block whose
    baseline has no score is left out. An arm that lost a seed leaves the pool and is judged on its own complete pairs
    by a paired t test. A diverged arm can be neither better nor equivalent, though it may be worse, and nothing is
    worse than, or equivalent to, a diverged baseline, even where that was seen after the arm had stopped.

    Args:
        scores: float64[1 + arms, seeds], baseline in row 0, blocks in the order of the plan; NaN without a score.
        status: The same shape: "finished", "diverged", "failed", or "missing" for a run still to come.
        design: The design.
        higher_is_better: Direction of the metric.

    Raises:
        StatisticsError: if the arrays do not fit the design, or a finished run has no finite score.
    """
    ended = np.asarray(status, np.str_)
    _refuse_misfits(scores, ended, design)
    oriented = np.where(ended == "finished", scores if higher_is_better else -scores, np.nan)
    path, kept, seen, diverged = _Path(1, design), [], 0, np.zeros(1 + design.arms, np.bool_)
    asked = np.tile(np.arange(design.seeds) < FIRST_LOOK, (1 + design.arms, 1))
    for block in range(design.seeds):
        if not path.running.any():
            break
        wanted = asked[:, block] = np.r_[True, path.running[0]]
        if (ended[wanted, block] == "missing").any():
            break
        seen += 1
        diverged |= wanted & (ended[:, block] == "diverged")
        if ended[0, block] != "finished":
            continue
        kept.append(block)
        if len(kept) >= FIRST_LOOK:
            closed = np.broadcast_arrays(diverged[1:], diverged[0], diverged[1:] | diverged[0])
            path.look(oriented[None, :, kept], _Closed(*(flags[None] for flags in closed)))
    exhausted = seen == design.seeds
    arms = (_standing(path, arm, diverged, exhausted, higher_is_better) for arm in range(design.arms))
    return Progress(tuple(arms), asked, exhausted or not path.running.any())


def _standing(path: _Path, arm: int, diverged: Mask, over: bool, higher_is_better: bool) -> Standing:
    state, seeds, estimate, low, high, p, boundary = (field[0, arm].item() for field in path.course)
    word = _word(state, over)
    blocked = None
    if diverged[1 + arm] and word != "worse":
        blocked = "diverged"
    if diverged[0] and word != "better":
        blocked = "the baseline diverged"
        word = "undecided" if word in ("worse", "equivalent") else word
    if seeds == 0:
        return Standing(word, blocked=blocked)
    found = Standing(word, seeds, estimate, p=p, boundary=boundary, blocked=blocked)
    if not 0 < high - low < np.inf:
        reason = "too few complete pairs" if high > low else "no noise between seeds to test against"
        found = replace(found, low=0.0, high=0.0) if low == high == 0 else replace(found, blocked=blocked or reason)
    elif state in (ABOVE, BELOW) and low < 0 < high:
        found = replace(found, low=0.0 if state == ABOVE else low, high=high if state == ABOVE else 0.0, cut=True)
    else:
        found = replace(found, low=low, high=high)
    return found if higher_is_better else _turned(found)


def _word(state: int, over: bool) -> State:
    words: tuple[State, ...] = ("undecided" if over else "running", "better", "worse", "equivalent", "futile")
    return words[state]


def _turned(found: Standing) -> Standing:
    """Undo the change of sign under which less is better."""
    low, high = (None if end is None else 0.0 - end for end in (found.high, found.low))
    return replace(found, estimate=None if found.estimate is None else 0.0 - found.estimate, low=low, high=high)


def _refuse_misfits(scores: Array, ended: NDArray[np.str_], design: Design) -> None:
    wanted = (1 + design.arms, design.seeds)
    if scores.shape != wanted or ended.shape != wanted:
        raise StatisticsError(
            "scores and design do not fit", expected=f"shape {wanted}", got=f"{scores.shape} and {ended.shape}"
        )
    if not np.isfinite(scores[ended == "finished"]).all():
        raise StatisticsError(
            "a finished run has no finite score", expected="a number, or the status 'diverged'", got="nan or infinity"
        )


class _Path:
    """Data sets on their way through the looks."""

    def __init__(self, sets: int, design: Design) -> None:
        shape = (sets, design.arms)
        self._design = design
        self._limits = boundaries(design.seeds, design.arms, design.alpha)
        self._left = Left.none(sets)
        self.course = Course(np.zeros(shape, np.int8), np.zeros(shape, np.int64), *np.zeros((5, *shape)))

    @property
    def running(self) -> Mask:
        """bool[sets, arms]."""
        return np.asarray(self.course.state == RUNNING)

    def look(self, scores: Array, closed: _Closed | None = None) -> None:
        """Judge the running arms on float64[sets, 1 + arms, seeds], and take note."""
        sets = np.flatnonzero(self.running.any(axis=1))
        running, state, seeds = self.running[sets], self.course.state[sets], scores.shape[-1]
        closed = _Closed(*np.zeros((3, *running.shape), np.bool_)) if closed is None else closed
        found = look(scores[sets], running, Left(*(part[sets] for part in self._left)))
        p, boundary = self._judge(found, running, state, seeds, closed)
        if self._design.futility and FUTILE_LOOK <= seeds < self._design.seeds:
            state[(state == RUNNING) & (self._chance(found, state, seeds, closed) < FUTILE_CHANCE)] = FUTILE
        leaving = running & (state != RUNNING) & (found.squares > 0)
        self._left.squares[sets] += (found.squares * leaving).sum(axis=1)
        self._left.df[sets] += (seeds - 1.0) * leaving.sum(axis=1)
        tail = self._limits.difference[seeds - FIRST_LOOK, -1] / (2 * found.tax)
        known = np.isfinite(found.error)
        half = np.where(known, -stdtrit(found.df, tail) * np.where(known, found.error, 0.0), np.inf)
        low, high = found.estimate - half, found.estimate + half
        now: tuple[Any, ...] = (state, seeds, found.estimate, low, high, p, boundary)
        for name, value in zip(Course._fields, now, strict=True):
            field = getattr(self.course, name)
            field[sets] = np.where(running, value, field[sets])

    def _judge(
        self, found: Look, running: Mask, state: NDArray[np.int8], seeds: int, closed: _Closed
    ) -> tuple[Array, Array]:
        """Mark in `state` the arms that are decided; return their nominal p-values and what they were compared with."""
        row, p, up = seeds - FIRST_LOOK, found.p_different(), found.estimate > 0
        is_open = running & ~np.where(up, closed.above, closed.below)
        taken = _count(state, ABOVE, BELOW)
        different, boundary = _step_down(np.where(is_open, p, np.inf), self._limits.difference[row], taken)
        state[different] = np.where(up, ABOVE, BELOW)[different]
        if self._design.margin is not None:
            is_open = running & ~different & ~closed.equivalent
            p_beyond = np.where(is_open, found.p_beyond(self._design.margin), np.inf)
            taken = _count(state, EQUIVALENT)
            state[_step_down(p_beyond, self._limits.equivalence[row], taken)[0]] = EQUIVALENT
        return p, boundary

    def _chance(self, found: Look, state: NDArray[np.int8], seeds: int, closed: _Closed) -> Array:
        """Predictive chance of a verdict at the last look, from a flat prior and the noise seen so far."""
        share, now = seeds / self._design.seeds, np.where(np.isfinite(found.error), found.error, 0.0)
        spread = np.maximum(now * np.sqrt(1 - share), np.finfo(np.float64).tiny)
        df, error = found.df * (self._design.seeds - 1) / (seeds - 1), now * np.sqrt(share)

        def below(limit: Array) -> Array:
            return np.asarray(stdtr(found.df, (limit - found.estimate) / spread))

        size = self._design.arms - 1 - _count(state, ABOVE, BELOW)
        far = -stdtrit(df, self._limits.difference[-1][size][:, None] / 2) * error
        chance = (1 - below(far)) * ~closed.above + below(-far) * ~closed.below
        if self._design.margin is not None:
            size = self._design.arms - 1 - _count(state, EQUIVALENT)
            near = self._design.margin + stdtrit(df, self._limits.equivalence[-1][size][:, None]) * error
            chance += np.maximum(below(near) - below(-near), 0.0) * ~closed.equivalent
        return np.asarray(chance)


class _Closed(NamedTuple):
    """Verdicts that are not open to an arm because a run diverged: bool[sets, arms] each."""

    above: Mask
    below: Mask
    equivalent: Mask


def _count(state: NDArray[np.int8], *kinds: int) -> NDArray[np.int64]:
    return np.asarray(np.isin(state, kinds).sum(axis=1))


def _step_down(p: Array, limits: Array, taken: NDArray[np.int64]) -> tuple[Mask, Array]:
    """Reject in the order of the p-values while each is within the limit of the family that is left.

    Args:
        p: float64[sets, arms], infinite for arms that cannot be rejected.
        limits: float64[arms], for families of 1, 2, ... arms.
        taken: int64[sets], arms of the family rejected at earlier looks.

    Returns:
        Which are rejected, and the limit of each.
    """
    order = np.argsort(p, axis=1, kind="stable")
    size = np.maximum(len(limits) - 1 - taken[:, None] - np.arange(len(limits)), 0)
    passed = np.logical_and.accumulate(np.take_along_axis(p, order, axis=1) <= limits[size], axis=1)
    rejected, limit = np.zeros(p.shape, np.bool_), np.zeros(p.shape)
    np.put_along_axis(rejected, order, passed, axis=1)
    np.put_along_axis(limit, order, limits[size], axis=1)
    return rejected, limit
