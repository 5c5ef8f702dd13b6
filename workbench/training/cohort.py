"""Seed-batched training: several seeds of one arm as one stack of models, for a device that one of them leaves idle.

Each seed keeps its own noise, data, dropout, gradient clipping, learning curve, checkpoints and end: a seed that
diverges leaves the stack and never touches the others. A stack agrees with the loop to rounding and not to the bit,
which is why the way of execution is part of a run's key and a contrast never mixes the two.

Probes see weights and gradients of every seed, and no activations.

Refuses (`refuse_unstacked`) architectures whose passes depend on the data or draw random numbers
(`Architecture.unstacked`), and what treats one seed unlike another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from architectures.architecture import Architecture
from architectures.drawing import stream, streams
from architectures.transformer import Batch
from workbench.errors import PlanError
from workbench.training.feeding import Fed
from workbench.training.loop import Interrupted, Job, Run, Step, Trained, begin
from workbench.training.objective import Objective
from workbench.training.optimizers import Optimizer, make_optimizer, set_rates
from workbench.training.pace import curve_interval
from workbench.training.parallel import Alone
from workbench.training.probes import Prober
from workbench.training.recipe import Training
from workbench.training.stepping import Taken, take_step

ELEMENTWISE = ("adamw", "lion")  # optimizers that may see stacked parameters as one; others step seed by seed
TOGETHER = (  # what a stage may declare; anything else that is not at its default is refused by its name
    "kind", "tokens", "batch", "optimizer", "schedule", "clip", "checkpoint_seconds", "microbatch", "batch_warmup",
    "z_loss", "label_smoothing", "keep", "checkpoints", "keep_best", "packing", "probes",
    "answers", "loss",
)  # fmt: skip
# Of the memory that is free, what a stack may plan with: its loss keeps more of the head than one model's, and a CPU's
# memory is shared with other workers.
SHARE = {"cuda": 0.6, "cpu": 0.25}


class Stack(nn.Module):
    """Models of one architecture as one, each parameter (seeds, ...).

    The models stay usable: their parameters become the rows of the stacked ones, and nothing is held twice.

    Args:
        objectives: What each seed minimises, the same but for the weights.
        optimizers: Theirs; what they have kept so far goes into the stack.
        recipe: By which they were made. What decays is decided by the shape in one model, not by that in the stack.
    """

    def __init__(
        self, objectives: Sequence[Objective], optimizers: Sequence[torch.optim.Optimizer], recipe: Optimizer
    ) -> None:
        super().__init__()
        self._singles = [dict(objective.named_parameters()) for objective in objectives]
        self._optimizers = list(optimizers)
        self._objective = (objectives[0],)  # in a tuple torch does not see it: what is trained are the stacked ones
        self.names = tuple(self._singles[0])
        self.stacked = nn.ParameterList(self._stack(name) for name in self.names)
        stackable = recipe.kind in ELEMENTWISE and getattr(recipe, "states", "float32") == "float32"
        self.optimizer = self._stack_optimizer(objectives[0], recipe) if stackable else OneByOne(self, optimizers)

    def forward(self, batch: Batch, progress: Tensor, places: Tensor | None = None, step: int = 0) -> Any:
        """Return what `Objective.forward` returns, with a first dimension for the seeds in everything.

        Args:
            batch: With a first dimension for the seeds in every tensor.
            progress: As for one model.
            places: (seeds, batch, time), or None.
            step: As for one model.
        """

        def one(weights: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Any:
            held = dict(given)
            where = held.pop("places", None)
            return functional_call(self._objective[0], dict(weights), (Batch(**held), progress, where, step))

        given = {name: value for name, value in _tensors(batch).items() if value is not None}
        given |= {} if places is None else {"places": places}
        return torch.vmap(one)(dict(zip(self.names, self.stacked, strict=True)), given)

    def lend_gradients(self, lent: bool) -> None:
        """Let the gradients of every seed be seen in its own model, or no longer."""
        for seed, single in enumerate(self._singles):
            for name, stacked in zip(self.names, self.stacked, strict=True):
                single[name].grad = stacked.grad[seed] if lent and stacked.grad is not None else None

    def settle(self) -> None:
        """Give every seed's optimizer what belongs to the seed, as `Run.save` and another stack expect it."""
        if isinstance(self.optimizer, OneByOne):  # which keep everything themselves
            return
        for seed, (optimizer, single) in enumerate(zip(self._optimizers, self._singles, strict=True)):
            for name, stacked in zip(self.names, self.stacked, strict=True):
                held = self.optimizer.state.get(stacked, {})
                rows = {moment: value if moment == "step" else value[seed] for moment, value in held.items()}
                optimizer.state[single[name]] = rows

    def _stack(self, name: str) -> nn.Parameter:
        stacked = nn.Parameter(torch.stack([single[name].detach() for single in self._singles]))
        for single, row in zip(self._singles, stacked.detach(), strict=True):
            single[name].data = row
        return stacked

    def _stack_optimizer(self, objective: Objective, recipe: Optimizer) -> torch.optim.Optimizer:
        optimizer = make_optimizer(objective.model, recipe)
        stacked = {self._singles[0][name]: weight for name, weight in zip(self.names, self.stacked, strict=True)}
        for group in optimizer.param_groups:
            group["params"] = [stacked[single] for single in group["params"]]
        for name, weight in zip(self.names, self.stacked, strict=True):
            held = [
                one.state.get(single[name], {}) for one, single in zip(self._optimizers, self._singles, strict=True)
            ]
            if held[0]:
                optimizer.state[weight] = {
                    moment: value.clone() if moment == "step" else torch.stack([one[moment] for one in held])
                    for moment, value in held[0].items()
                }
        return optimizer


class OneByOne(torch.optim.Optimizer):
    """The optimizers of the seeds, one after the other, where one must not see the seeds as one parameter.

    Muon makes a matrix orthogonal as a whole, and moments in eight bits share a scale over a block.
    """

    def __init__(self, stack: Stack, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__(list(stack.stacked), {})
        self._stack, self._each = stack, tuple(optimizers)
        self.param_groups = [group for one in optimizers for group in one.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all seeds."""
        for weight in self._stack.stacked:
            weight.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step of each; their parameters are the rows of the stacked ones."""
        self._stack.lend_gradients(True)
        for one in self._each:
            one.step()
        self._stack.lend_gradients(False)


class Abreast(Alone):
    """One process that steps through several seeds at once: what is one number for a model is one per seed."""

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of values of sequences, (seeds, batch, time), for every seed."""
        return values.sum((-2, -1))

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """Scale the gradient of every seed down to a norm of `limit`; return the norms before, (seeds,)."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norms = [torch.linalg.vector_norm(gradient.reshape(len(gradient), -1), dim=1) for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ does for one model
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *(1,) * (gradient.dim() - 1)))
        return cast(Tensor, norm)


def train_together(
    jobs: Sequence[Job],
    *,
    watch: Callable[[Step], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> list[Trained]:
    """Train the same stage of one arm under several seeds, as `train` does one after the other.

    Each leaves in its own folder what `train` leaves there. Seeds that have ended before are loaded; those that were
    interrupted at the same step go on together. As many train at once as memory is expected to hold, and half as many
    where it does not.

    Args:
        jobs: The same but for seeds, feed and folders.
        watch: Called at every point that is put on the curves, with the mean loss.
        stop: Asked after every step; when true checkpoints are written and `Interrupted` raised.
        say: Told how many seeds train at once.

    Raises:
        StoreError: if a parent is not trained, or weights are damaged.
    """
    waiting = [job for job in jobs if not (job.folder / "final.json").exists() or begin(job)[1] is None]
    most = seeds_at_once(jobs[0], len(waiting)) if waiting else 0
    while waiting:
        some = waiting[:most]
        say(f"{len(some)} of {len(jobs)} seeds at once")
        try:
            _train_some(some, watch, stop)
        except torch.OutOfMemoryError:
            if len(some) == 1:
                raise
            most = len(some) // 2
        else:
            waiting = waiting[len(some) :]
    return [cast(Trained, begin(job)[1]) for job in jobs]


def seeds_at_once(job: Job, seeds: int, free: int | None = None) -> int:
    """Return how many of `seeds` fit into memory together, one at least.

    Args:
        job: One of them.
        seeds: How many there are.
        free: Bytes; None asks the device.
    """
    needed = job.stage.memory(job.architecture, job.numerics.precision)
    free = _free(job.numerics.device) if free is None else free
    return max(1, min(seeds, int(SHARE[job.numerics.device] * free / (needed.states + needed.activations))))


def refuse_unstacked(architecture: Architecture, stages: Sequence[Training], where: str) -> None:
    """Refuse what cannot be trained as a stack of seeds.

    Args:
        architecture: Of the arm.
        stages: That train it.
        where: For the message.

    Raises:
        PlanError: naming it.
    """
    reasons = {"architecture": architecture.unstacked()}
    for place, stage in enumerate(stages):
        for name, field in type(stage).model_fields.items():
            if name not in TOGETHER and getattr(stage, name) != field.default:
                reasons[f"stages.{place}.{name}"] = "treats one seed unlike another, or has not been tried on a stack"
    for path, reason in reasons.items():
        if reason is not None:
            raise PlanError(
                "an arm cannot be trained as a stack of seeds",
                where=f"{where}, {path}",
                expected="what the same operations compute for every seed",
                got=reason,
                fix='leave the arm out, or train every seed by itself: execution="loop"',
            )


def together(feds: Sequence[Fed]) -> Fed:
    """Return the sequences of every seed as one, each tensor (seeds, batch, time)."""
    shape, batches = feds[0].batch.tokens.shape, [_tensors(fed.batch) for fed in feds]
    if len({tuple(name for name, value in batch.items() if value is not None) for batch in batches}) > 1:
        raise ValueError("feeds: expected positions and documents for every seed or for none, got them for some")
    stacked = {
        name: torch.stack([cast(Tensor, batch[name]).expand(shape) for batch in batches])
        for name, value in batches[0].items()
        if value is not None
    }
    places = [fed.places for fed in feds if fed.places is not None]
    return Fed(Batch(**stacked), torch.stack(places) if places else None)


def _train_some(jobs: Sequence[Job], watch: Callable[[Step], None], stop: Callable[[], bool]) -> None:
    _level(jobs)
    runs = [Run(job, begin(job)[0], lambda step: None, stop, Abreast()) for job in jobs]
    for run in runs:  # under vmap activations are not to be seen
        run.prober = Prober(run.job.stage.probes, run.model, run.pace.steps, curve_interval(run.pace.steps), True)
    runs.sort(key=lambda run: run.progress.step)
    for _, level in groupby(runs, key=lambda run: run.progress.step):
        _go(list(level), watch, stop)


def _go(runs: list[Run], watch: Callable[[Step], None], stop: Callable[[], bool]) -> None:
    """Take runs that stand at the same step to their end, side by side."""
    for run in runs:
        run.model.train()
    stack, saved = _stack(runs), time.perf_counter()
    before = saved
    while runs and (step := runs[0].progress.step) < runs[0].pace.steps:
        stage = runs[0].job.stage
        factor = stage.schedule.factor(step, runs[0].pace.steps)
        set_rates(stack.optimizer, factor)
        taken = _take(runs, stack, step)
        now = time.perf_counter()
        for run in runs:
            run.progress.step = step + 1
            run.progress.seconds += (now - before) / len(runs)
        before = now
        if runs[0].marked():
            alive = _note(runs, taken, factor, watch)
            if len(alive) < len(runs):
                stack.settle()
                runs, stack = alive, _stack(alive) if alive else stack
        stopping = stop()
        if stopping or time.perf_counter() - saved > stage.checkpoint_seconds:
            stack.settle()
            for run in runs:
                run.save()
            saved = time.perf_counter()
        if stopping:
            raise Interrupted
    for run in runs:
        run.end(None)


def _take(runs: Sequence[Run], stack: Stack, step: int) -> Taken:
    """Take a step of every seed, each from its own text and its own stream of random numbers."""
    job, prober, share = runs[0].job, runs[0].prober, step / runs[0].pace.steps
    parts = [together(parts) for parts in zip(*(run.parts(step)[0] for run in runs), strict=True)]
    with ExitStack() as probing:
        for run in runs:
            probing.enter_context(run.prober.over(step + 1))
        with streams(_drawing(runs, step)):
            clip, parallel = job.stage.clip, runs[0].parallel
            taken = take_step(stack, stack.optimizer, parts, job.numerics, clip, share, step, parallel)
        if prober.looks(step + 1):
            stack.lend_gradients(True)
    if prober.looks(step + 1):
        stack.lend_gradients(False)
    return taken


def _drawing(runs: Sequence[Run], step: int) -> list[Tensor]:
    """Return where the stream of random numbers of every seed stands at the beginning of a step."""
    states = []
    for run in runs if runs[0].job.architecture.draws else ():
        run.draw_dropout(step)
        states.append(stream(run.job.numerics.device))
    return states


def _stack(runs: Sequence[Run]) -> Stack:
    for run in runs:
        run.together = max(run.together, len(runs))
    objectives = [cast(Objective, run.objective) for run in runs]
    return Stack(objectives, [run.optimizer for run in runs], runs[0].job.stage.optimizer)


def _note(runs: Sequence[Run], taken: Taken, factor: float, watch: Callable[[Step], None]) -> list[Run]:
    """Put the last step on the curve of every seed; end those that diverged in it, and return the others."""
    alive = []
    for seed, run in enumerate(runs):
        costs = {name: value[seed] for name, value in taken.costs.items()}
        seen = {name: value[seed] for name, value in taken.seen.items()}
        reason = run.note(Taken(taken.loss[seed], taken.norm[seed], costs, seen), factor)
        if reason is None:
            alive.append(run)
        else:
            run.end(reason)
    if alive:
        loss = sum(run.progress.curve[-1]["loss"] for run in alive) / len(alive)
        one = alive[0].progress  # its seconds are its share, so that its speed is that of the whole stack
        speed = one.curve[-1]["tokens"] / max(one.seconds, 1e-9)
        watch(Step(one.step, alive[0].pace.steps, loss, speed))
    return alive


def _level(jobs: Sequence[Job]) -> None:
    """Remove checkpoints that a kill left some of the seeds with, and the others without."""
    held = {job.folder: {path.stem for path in job.folder.glob("step-*.json")} for job in jobs}
    held = {folder: stems for folder, stems in held.items() if stems}
    common = set.intersection(*held.values()) if held else set()
    for folder in held if common else ():
        for path in folder.glob("step-*"):
            if path.stem > max(common):
                path.unlink(missing_ok=True)


def _free(device: str) -> int:
    """Return the bytes that are free on the device, or on this machine for a CPU."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        with open("/proc/meminfo") as facts:
            return next(int(line.split()[1]) * 1024 for line in facts if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _tensors(batch: Batch) -> dict[str, Tensor | None]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}
