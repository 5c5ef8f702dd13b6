"""What a user declares: one question, one baseline, arms that each differ from it in one declared thing, and seeds.

A sweep file is Python that exposes `SWEEP = Sweep(...)`; YAML and JSON files of the same fields are accepted, with
`vary:` in place of an arm's configuration. Refuses unknown fields, ambiguous paths and arms without a name, and says
which line.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, Field, InstanceOf, ValidationError, field_validator, model_validator

from workbench.errors import SweepError
from workbench.evaluation.tasks import Task
from workbench.identity import Spec
from workbench.records import Seeds
from workbench.statistics.boundaries import FIRST_LOOK

KNOWN_METRICS = {name: known for task in get_args(get_args(Task)[0]) for name, known in task.metrics.items()}


class Metric(Spec):
    """A number every run leaves, its direction, and the smallest difference in it that would matter to the user.

    Attributes:
        name: As the scores name it. `bits_per_byte`, `accuracy` and `margin` know their direction and unit, in every
            view: `bits_per_byte@2x`. Where several tasks leave a metric, with the task's name: `blimp/accuracy`, or
            `*/accuracy` for the mean over all that do.
        smallest_effect: In the metric's unit; differences provably within plus or minus this are called equivalent.
        higher_is_better: Needed for a metric the workbench does not know.
        unit: In words, for tables and axes.
    """

    name: str
    smallest_effect: float = Field(gt=0)
    higher_is_better: bool | None = None
    unit: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_known(cls, values: Any) -> Any:
        named = str(values.get("name")) if isinstance(values, dict) else ""
        known = KNOWN_METRICS.get(named.rpartition("/")[2].partition("@")[0])
        if known is not None:
            return {"higher_is_better": known.higher_is_better, "unit": known.unit, **values}
        return values

    @model_validator(mode="after")
    def _direction_is_known(self) -> Self:
        if self.higher_is_better is None:
            raise ValueError(
                f"higher_is_better: expected True or False for a metric the workbench does not know, got none "
                f"(it knows {', '.join(KNOWN_METRICS)})"
            )
        return self


class Compensation(Spec):
    """A second field an arm may change, in order to hold something equal; the planner checks that it does."""

    path: str
    holds: Literal["parameters", "flops"] = "parameters"


class Variant(Spec, ABC):
    """What is trained and scored: a `Configuration` of ours or a `Command` of the user's."""

    @abstractmethod
    def model_id(self, fingerprint: str, seeds: Seeds) -> str:
        """Identify the trained model, given the hash of the raw corpus."""

    def lineage(self, fingerprint: str, seeds: Seeds) -> tuple[str, ...]:
        """Identify the model after every stage, the one that is trained first and that which is scored last."""
        return (self.model_id(fingerprint, seeds),)

    def trained_lineage(self, lineage: tuple[str, ...]) -> tuple[str, ...]:
        """Return the part of a lineage that is trained, and not only changed by a rule afterwards."""
        return lineage

    @abstractmethod
    def score_id(self, model_id: str) -> str:
        """Identify the scores of that model."""

    @abstractmethod
    def size(self) -> dict[str, Any]:
        """Return `parameters`, `flops_per_token`, `flops_formula`, `tokens` and `steps`, each None where unknown."""

    @abstractmethod
    def paired_with(self, baseline: Variant, same_seeds: bool) -> dict[str, Any]:
        """Say how far a run of this variant shares its noise with the baseline's: `pairing` and `coverage`."""

    def produces(self) -> tuple[str, ...] | None:
        """Name the metrics of its scores, each as "task/metric"; None where only a run can tell."""
        return None

    def chance(self, metric: str) -> float | None:
        """Return what guessing scores on a metric of its scores; None where nobody knows."""
        return None

    def refuse_unanswerable(self, where: str) -> None:
        """Refuse, before anything is trained, an evaluation that the trained model could not answer.

        Raises:
            PlanError: saying what it cannot answer; `where` names the arm.
        """

    def vary(self, **changes: Any) -> Self:
        """Return a copy with fields changed, validated as a whole.

        A field is named by its path with `__` for the dots, or by the end of that path where only one field ends so:
        `vary(position=Alibi())`, `vary(architecture__feed_forward__width=256)`.

        Raises:
            SweepError: if a name fits no field or several, or the result is impossible.
        """
        tree: dict[str, Any] = dict(self)
        for name, value in changes.items():
            _assign(tree, self.path_of(name).split("."), value)
        try:
            return type(self).model_validate(tree)
        except ValidationError as error:
            raise explain(error, where=f"{type(self).__name__}.vary({', '.join(changes)})") from None

    def path_of(self, name: str) -> str:
        """Resolve a short field name to the one dotted path that ends in it; components go before single values.

        Raises:
            SweepError: if it fits no path or several.
        """
        wanted = name.replace("__", ".")
        paths = dict(_paths(self))
        if wanted in paths:
            return wanted
        fitting = [path for path in paths if path.endswith("." + wanted)]
        whole = [path for path in fitting if paths[path]]
        if len(whole or fitting) == 1:
            return (whole or fitting)[0]
        if fitting:
            raise SweepError(f"the field '{name}' is ambiguous", expected="one of " + ", ".join(fitting), got=name)
        names = {path.rsplit(".", 1)[-1] for path in paths}
        close = difflib.get_close_matches(wanted.rsplit(".", 1)[-1], sorted(names), n=3)
        raise SweepError(
            f"there is no field '{name}' to vary",
            where=type(self).__name__,
            expected=", ".join(close) if close else "one of " + ", ".join(sorted(names)),
            got=name,
        )


class Arm(Spec):
    """One variant, and the declaration of how it may differ from the baseline.

    Attributes:
        name: As tables show it.
        configuration: What is trained; `BASELINE.vary(position=Alibi())`.
        axis: The field that differs (with everything below it), or several for a declared bundle; "seeds" for an
            A/A arm, which is the baseline under other seeds; "trainer" where one of the two is a `Command`.
        compensation: One more field that changes in order to hold parameters or FLOPs equal.
        seed_offset: Added to every seed of the arm; only for the axis "seeds".
    """

    name: str = Field(min_length=1)
    configuration: InstanceOf[Variant]
    axis: tuple[str, ...]
    compensation: Compensation | None = None
    seed_offset: int = 0

    @field_validator("axis", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("compensation", mode="before")
    @classmethod
    def _path_alone_holds_parameters(cls, value: Any) -> Any:
        return Compensation(path=value) if isinstance(value, str) else value


class NumericsRequest(Spec):
    """How arithmetic should be done on the target device; "auto" is resolved once per plan to what all arms support.

    Attributes:
        device: Kind of.
        precision: Of forward passes.
        attention: A backend.
        threads: Of each process.
        execution: How the seeds of an arm share a device: one after the other ("loop"), or as one stack of models, for
            a device that one of them leaves idle ("stacked"); as `run --execution` says.
        devices: That train each run together, each with its share of every batch; as `run --devices` says.
        sharded: Whether each of them keeps a share of weights and optimizer (FSDP2), not all of it (DDP).
        compiled: Whether training runs through torch.compile, which rounds otherwise.
        recompute: Whether a block's activations are computed again in the backward pass, to save their memory
            (activation checkpointing, arXiv:1604.06174); the result is the same, bit for bit.
        matmul: What linear layers multiply in training: "same" is what `precision` says, "fp8" and "int8" are eight
            bits, through torchao (extra `lowbit`).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: str = "auto"
    threads: int = Field(default=1, ge=1)
    execution: Literal["loop", "stacked"] = "loop"
    devices: int = Field(default=1, ge=1)
    sharded: bool = False
    compiled: bool = False
    recompute: bool = False
    matmul: Literal["same", "fp8", "int8"] = "same"


class Sweep(Spec):
    """One question, asked of a baseline and its arms under the same seeds.

    Attributes:
        question: One sentence; the report opens with it.
        baseline: What every arm is compared with.
        arms: The variants, each differing from the baseline in one declared thing.
        seeds: How many (they are then 0, 1, ...) or which. Every arm runs under every seed.
        metric: The primary metric, on which the verdicts stand.
        secondary: Further metrics, reported as exploratory.
        guards: Names of secondary metrics an arm must not pay with: "better" is then also claimed jointly with "worse
            by less than their smallest effect", at one error rate for the whole claim.
        alpha: Family-wise error rate over the arms.
        noise: Residual standard deviation of one run in the primary metric, seed effect removed. A pilot's report gives
            it with its upper bound; take the bound. Lets the plan say in the metric's unit what it can detect.
        design: "fixed" runs every seed and judges once. "sequential" judges after every seed from the fourth on, at the
            same error over all looks together, and runs no further seed of a decided arm; `seeds` are then the most.
            "single" is one run of the baseline that is compared with nothing: what `workbench train` does.
        futility: In a sequential design, also stop arms that all seeds will hardly decide.
    """

    name: str = ""
    question: str = Field(min_length=1)
    baseline: InstanceOf[Variant]
    baseline_name: str = "baseline"
    arms: tuple[Arm, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    metric: Metric
    secondary: tuple[Metric, ...] = ()
    guards: tuple[str, ...] = ()
    alpha: float = Field(default=0.05, gt=0, lt=1)
    numerics: NumericsRequest = NumericsRequest()
    noise: float | None = Field(default=None, gt=0)
    design: Literal["fixed", "sequential", "single"] = "fixed"
    futility: bool = False

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        return tuple(range(value)) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _names_and_seeds_are_distinct(self) -> Self:
        names = [self.baseline_name, *(arm.name for arm in self.arms)]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"arms: expected distinct names, got {', '.join(repeated)} more than once")
        if self.design == "single":
            if self.arms or len(self.seeds) != 1:
                raise ValueError(f"design: a single run has one seed and no arms, got {self.seeds} and {names[1:]}")
            return self
        if not self.arms:
            raise ValueError("arms: expected one or more to compare with the baseline, got none")
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:
            raise ValueError(f"seeds: expected two or more distinct seeds, got {list(self.seeds)}")
        return self

    @model_validator(mode="after")
    def _guards_are_secondary_metrics(self) -> Self:
        named = [metric.name for metric in self.secondary]
        if strange := [guard for guard in self.guards if guard not in named]:
            raise ValueError(f"guards: expected names of secondary metrics ({', '.join(named)}), got {strange[0]}")
        if self.guards and self.design == "sequential":
            raise ValueError("guards: a sequential design stops arms by one metric; a joint claim needs a fixed one")
        return self

    @model_validator(mode="after")
    def _design_is_possible(self) -> Self:
        if self.design == "sequential" and len(self.seeds) <= FIRST_LOOK:
            raise ValueError(f"seeds: a sequential design needs more than {FIRST_LOOK}, got {len(self.seeds)}")
        if self.futility and self.design != "sequential":
            raise ValueError('futility: only a sequential design stops arms; add design="sequential"')
        return self


def explain(error: ValidationError, where: object) -> SweepError:
    """Turn pydantic's account of what is wrong into one message of ours, with a suggestion for a misspelt field."""
    told = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"]) or error.title
        if problem["type"] == "extra_forbidden":
            fields = _fields_of(error.title, problem["loc"])
            close = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(fields)}" if fields else ""
            told.append(f"{path}: there is no such field{hint}")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            shown = repr(problem["input"])
            got = f" (got {shown})" if len(shown) < 60 and problem["type"] not in ("value_error", "missing") else ""
            told.append(f"{path}: {message}{got}")
    return SweepError(f"{error.title} cannot be built", where=where, got="\n            ".join(told))


def seeds_of(arm: Arm | None, seed: int) -> Seeds:
    """Return the seeds under which `arm` (None: the baseline) runs in the block `seed`."""
    return Seeds.all(seed + (arm.seed_offset if arm else 0))


def _fields_of(title: str, location: tuple[int | str, ...]) -> list[str]:
    """Field names of the specification that refused a field: by its class name, or by the kind in the location."""
    waiting: list[type[BaseModel]] = [Spec, *BaseModel.__subclasses__()]
    fields: set[str] = set()
    seen: set[type[BaseModel]] = set()
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        waiting += model.__subclasses__()
        kind = model.model_fields.get("kind")
        if (len(location) == 1 and model.__name__ == title) or (kind is not None and kind.default in location[:-1]):
            fields |= set(model.model_fields)
    return sorted(fields)


def _paths(value: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every dotted path below `value`, and whether a whole specification stands there."""
    held = (
        dict(value)
        if isinstance(value, BaseModel | dict)
        else dict(enumerate(value))
        if isinstance(value, tuple)
        else {}
    )
    for name, below in held.items():
        yield f"{prefix}{name}", isinstance(below, BaseModel)
        yield from _paths(below, f"{prefix}{name}.")


def _assign(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a nested field in a tree of plain fields, opening the specifications on the way: all are validated anew."""
    head, *rest = parts
    if not rest:
        tree[head] = value
        return
    below = tree[head]
    if isinstance(below, tuple | list):
        opened: dict[str, Any] = {str(index): held for index, held in enumerate(below)}
        _assign(opened, rest, value)
        tree[head] = tuple(opened.values())
    else:
        opened = dict(below)
        _assign(opened, rest, value)
        tree[head] = opened
