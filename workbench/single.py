"""One run outside a sweep: what is declared, checked against the machine, trained in this process and committed.

Promises the same loop, the same identity and the same record as a cell of a sweep: a run that a sweep has made already
is found, and typed again an interrupted one goes on. Refuses a model whose weights and optimizer do not fit into the
memory there is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from architectures.architecture import Architecture
from workbench.configuration import Configuration
from workbench.data.prepared import Data
from workbench.data.presets import told_corpus
from workbench.data.tokenizer import BytePairs
from workbench.errors import StoreError, SweepError, WorkbenchError
from workbench.evaluation.tasks import Samples
from workbench.identity import leaves
from workbench.loading import load_sweep
from workbench.records import Record
from workbench.running import Runner, Stopped
from workbench.session import Session, session_of
from workbench.store import write_durably
from workbench.sweep import Metric, NumericsRequest, Sweep, explain
from workbench.together import process_command, run_together
from workbench.training.recipe import Pretraining
from workbench.working import stop_requested

NAME = "train"  # of the sweep that all such runs are filed under
DECLARED = "single-run.json"  # beside the plan, for the devices that train such a run together
TOKENS = 1_000_000


@dataclass(frozen=True)
class Wishes:
    """What is asked to be otherwise than in the preset or arm; None leaves it as it is there."""

    tokens: int | None = None
    batch: int | None = None
    microbatch: int | None = None
    learning_rate: float | None = None
    vocabulary: int | None = None
    context: int | None = None
    corpus: str | None = None
    held_out: float | None = None
    prompts: tuple[str, ...] = ()

    def changes(self) -> dict[str, Any]:
        """Return them as changes of a configuration."""
        asked = {
            "stages__0__tokens": self.tokens,
            "stages__0__batch": self.batch,
            "stages__0__microbatch": self.microbatch,
            "stages__0__optimizer__learning_rate": self.learning_rate,
            "architecture__vocabulary": self.vocabulary,
            "data__tokenizer__vocabulary": self.vocabulary,
            "architecture__context": self.context,
            "data__corpus": told_corpus(self.corpus) if self.corpus else None,
            "data__held_out": self.held_out,
            "evaluation__samples": Samples(prompts=self.prompts) if self.prompts else None,
        }
        return {path: value for path, value in asked.items() if value is not None}


def configured(model: Architecture | Configuration, wishes: Wishes) -> tuple[Configuration, list[str]]:
    """Return what is trained, and in words where its architecture differs from the one that was named.

    Args:
        model: An arm's configuration; or an architecture, which gets the default recipe, `TOKENS` tokens and the
            embedded corpus with a tokenizer of its vocabulary.
        wishes: What shall be otherwise.

    Raises:
        SweepError: if the result is impossible.
    """
    try:
        named = model if isinstance(model, Configuration) else _default(model, wishes.vocabulary)
        result = named.vary(**wishes.changes())
    except ValidationError as error:
        raise explain(error, where="workbench train") from None
    except SweepError as error:
        error.details["where"] = "workbench train"
        raise
    architecture = model.architecture if isinstance(model, Configuration) else model
    before, after = leaves(architecture), leaves(result.architecture)
    adapted = [f"{path}: {before.get(path)} → {value}" for path, value in after.items() if before.get(path) != value]
    return result, adapted


def _default(architecture: Architecture, vocabulary: int | None) -> Configuration:
    size = vocabulary or architecture.vocabulary
    return Configuration(
        architecture=architecture.vary(vocabulary=size),
        stages=(Pretraining(tokens=TOKENS),),
        data=Data(tokenizer=BytePairs(vocabulary=size)),
    )


def single_sweep(name: str, configuration: Configuration, seed: int, numerics: NumericsRequest) -> Sweep:
    """Return the declaration of one run, filed under `NAME`; its metric is bits per byte where that is scored."""
    scored = [one.rpartition("/")[2] for one in configuration.produces()]
    metric = "bits_per_byte" if "bits_per_byte" in scored else scored[0]
    return Sweep(
        name=NAME,
        question=f"What does {name} learn?",
        baseline=configuration,
        baseline_name=name,
        seeds=(seed,),
        metric=Metric(name=metric, smallest_effect=0.02),
        numerics=numerics,
        design="single",
    )


def declare(session: Session) -> Path:
    """Write what the one run of a session is made of beside its plan, for `workbench rank`; return the path.

    Raises:
        StoreError: if the disk refuses it.
    """
    sweep, path = session.plan.sweep, session.store.home / "plans" / session.plan.hash / DECLARED
    model, colon, arm = session.sweep.rpartition(":")
    named = f"{Path(model).absolute()}:{arm}" if colon and Path(model).is_file() else session.sweep
    content = {
        "model": sweep.baseline_name,
        "named": named,
        "seed": sweep.seeds[0],
        "numerics": sweep.numerics.model_dump(mode="json"),
        "configuration": sweep.baseline.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps(content, indent=2).encode())
    return path


def open_declared(path: str, home: Path) -> Session:
    """Plan the run that `declare` wrote down. Nothing is written.

    Raises:
        SweepError: if that cannot be read, or no longer declares what can be built.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        model, colon, _ = str(content["named"]).rpartition(":")
        if colon:
            load_sweep(model)  # so that components of the user's own are known
        configuration = Configuration.model_validate(content["configuration"])
        numerics = NumericsRequest.model_validate(content["numerics"])
        sweep = single_sweep(content["model"], configuration, content["seed"], numerics)
    except ValidationError as error:
        raise explain(error, where=path) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = f"a {DECLARED} that `workbench train --devices` wrote"
        raise SweepError("a single run cannot be read", where=path, expected=expected, got=error) from None
    return session_of(sweep, home, path)


def cores() -> int:
    """Return the processor cores this process may use, eight at most: more gain a small model nothing."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def refuse_too_large(session: Session) -> str | None:
    """Return a warning if activations may not fit into memory; None if all fits.

    Raises:
        WorkbenchError: if not even the states (weights, gradients, optimizer) fit.
    """
    configuration, numerics = _configuration(session), session.plan.numerics
    assert numerics is not None  # noqa: S101 - a plan with a configuration has numerics
    needed = configuration.pretraining.memory(configuration.architecture, numerics.precision)
    devices = numerics.devices
    # processes without a GPU share the memory of the machine
    there = _memory(numerics.device) * (devices if numerics.device == "cuda" else 1)
    states = needed.states * (1 if numerics.sharded else devices)
    activations = needed.activations * (devices if configuration.pretraining.microbatch else 1)
    if states > there:
        raise WorkbenchError(
            "the model does not fit into this machine",
            where=numerics.device,
            expected=f"at least {states / 2**30:.1f} GiB for weights, gradients and optimizer",
            got=f"{there / 2**30:.1f} GiB in all",
            fix="train a smaller preset (`workbench show` lists them), or a smaller --vocabulary"
            + (", or keep a share on every device: --sharded" if devices > 1 and not numerics.sharded else ""),
        )
    if states + activations > there:
        return (
            f"a step may need {(states + activations) / 2**30:.1f} GiB, more than the "
            f"{there / 2**30:.1f} GiB there are; --microbatch 1 needs least"
        )
    return None


def train_single(
    session: Session, watch: Callable[[int, int, float, float], None], say: Callable[[str], None]
) -> Record | None:
    """Train, score and commit the one run of a session, or find it; None if it was stopped, its checkpoint written.

    Where its numerics name several devices, each of them is a process of its own.

    Raises:
        StoreError: if another process trains it.
        WorkbenchError: if data or runtime folder cannot be used.
    """

    def hear(news: dict[str, Any]) -> None:
        if news.get("event") == "step":
            watch(news["step"], news["steps"], news["loss"], news["tokens_per_second"])

    plan, store = session.plan, session.store
    (trial,) = plan.trials
    with stop_requested() as stop, store.lock(trial.run_id) as mine:
        if not mine:
            raise StoreError("another process trains this run", where=store.run_folder(trial.run_id))
        runner = Runner(plan, store, watch=watch, stop=stop, say=say)
        try:
            if plan.numerics is None or plan.numerics.devices == 1:
                return runner.run(trial)
            command = process_command("rank", str(declare(session)), plan, store, None)
            return run_together(runner, trial, [*command, "--cell", str(trial.cell)], stop, heard=hear)
        except Stopped:
            return None


def _configuration(session: Session) -> Configuration:
    configuration = session.plan.arms[0].configuration
    assert isinstance(configuration, Configuration)  # noqa: S101 - `single_sweep` made it
    return configuration


def _memory(device: str) -> int:
    """Return the bytes of memory that a device has in all."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
