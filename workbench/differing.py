"""In what an arm differs from the baseline, and whether that is what it declares.

Everything is told by dotted paths into resolved configurations; a declared axis accounts for what lies below it, a
compensation for one field more.
"""

from __future__ import annotations

from typing import Any

from workbench.errors import PlanError
from workbench.identity import leaves
from workbench.sweep import Arm, Sweep, Variant

EQUAL = 0.01  # how far a compensated quantity may stay from the baseline's, as a share of it


def difference(baseline: Variant, other: Variant) -> tuple[dict[str, Any], ...]:
    """List the resolved fields in which two variants differ: path, the baseline's value, the arm's.

    A field that only one of them has stands as None on the other side; fields that go with a kind that is replaced, or
    gone as a whole, are not listed. One that only the arm has, and that nobody chose, is marked as at its default.
    """
    ours, theirs = leaves(baseline), leaves(other)
    if type(baseline) is not type(other):
        ours, theirs = {"trainer": type(baseline).__name__, **ours}, {"trainer": type(other).__name__, **theirs}
    replaced = tuple(
        path.removesuffix("kind") for path in ours if path.endswith(".kind") and theirs.get(path) != ours[path]
    )
    gone = {path for path in ours if path not in theirs and path.startswith(replaced)} if replaced else set()
    # what is gone as a whole, such as a stage, is a difference: its kind stands for it
    outermost = (one for one in replaced if not any(one != other and one.startswith(other) for other in replaced))
    gone -= {f"{owner}kind" for owner in outermost}
    for here, there in ((ours, theirs), (theirs, ours)):  # a None that became a specification is told by its fields
        gone |= {path for path in here if path not in there and any(held.startswith(path + ".") for held in there)}
    paths = [*(path for path in ours if path not in gone), *(path for path in theirs if path not in {*ours, *gone})]
    chosen = leaves(other.model_dump(mode="json", exclude_defaults=True))
    unchosen = {path for path in theirs if path not in {*ours, *chosen} and not path.endswith("kind")}
    return tuple(
        {
            "path": path,
            "baseline": ours.get(path),
            "arm": theirs.get(path),
            **({"default": True} if path in unchosen else {}),
        }
        for path in paths
        if ours.get(path) != theirs.get(path) or (path in ours) != (path in theirs)
    )


def axis_path(arm: Arm, name: str) -> str:
    """Return the full path of a declared axis."""
    return name if name == "trainer" else arm.configuration.path_of(name)


def covered(axis: tuple[str, ...], found: tuple[dict[str, Any], ...]) -> set[str]:
    """Paths a declared axis accounts for: itself, all below it, and fields that come or go with a declared kind."""
    below = {entry["path"] for entry in found for path in axis if (entry["path"] + ".").startswith(path + ".")}
    if "trainer" in axis:
        return {entry["path"] for entry in found}
    owners = {path.removesuffix("kind") for path in axis if path.endswith(".kind")}
    come_or_go = {
        entry["path"]
        for entry in found
        for owner in owners
        if entry["path"].startswith(owner) and None in (entry["baseline"], entry["arm"])
    }
    return below | come_or_go


def refuse_idle_axis(arm: Arm, axis: tuple[str, ...], accounted: set[str], found: tuple[dict[str, Any], ...]) -> None:
    """Refuse an axis in which the arm does not differ.

    Raises:
        PlanError: naming it.
    """
    idle = [path for path in axis if path != "trainer" and not covered((path,), found)]
    if idle or not accounted:
        raise PlanError(
            "an arm does not differ where it says it does",
            where=f"arm '{arm.name}'",
            expected="a difference in " + ", ".join(idle or axis),
            got="the same value as the baseline",
        )


def compensated(arm: Arm, found: tuple[dict[str, Any], ...]) -> set[str]:
    """Return the paths that a declared compensation accounts for."""
    if arm.compensation is None:
        return set()
    path = arm.configuration.path_of(arm.compensation.path)
    return {entry["path"] for entry in found if (entry["path"] + ".").startswith(path + ".")}


def check_compensation(sweep: Sweep, arm: Arm, size: dict[str, Any]) -> None:
    """Refuse a compensation that does not hold equal what it says; `size` is the arm's.

    Raises:
        PlanError: saying what it holds instead.
    """
    assert arm.compensation is not None  # noqa: S101
    key = {"parameters": "parameters", "flops": "flops_per_token"}[arm.compensation.holds]
    ours, theirs = sweep.baseline.size()[key], size[key]
    if not ours or not theirs or abs(theirs / ours - 1) > EQUAL:
        raise PlanError(
            f"a compensation does not hold {arm.compensation.holds} equal",
            where=f"arm '{arm.name}', compensation {arm.compensation.path}",
            expected=f"{ours} within {EQUAL:.0%}",
            got=theirs,
        )
