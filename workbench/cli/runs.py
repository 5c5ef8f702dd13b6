"""Commands on single runs, outside a sweep: train, generate."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.options import HOME, Corpus, Devices, Home, Sharded, resolve_device
from workbench.errors import MissingExtra, WorkbenchError

if TYPE_CHECKING:
    from workbench.opening import Opened
    from workbench.records import Record
    from workbench.session import Session

Prompts = Annotated[
    list[str] | None, typer.Option("--prompt", help="Have it write a text after this when it is trained; repeatable.")
]


def train(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A preset (`workbench show` lists them) or an arm: SWEEP:ARM.")
    ],
    corpus: Corpus = None,
    tokens: Annotated[
        str | None, typer.Option(help="Budget, as 1M; a million for a preset, its own for an arm.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences per step.")] = None,
    microbatch: Annotated[
        int | None, typer.Option(min=1, help="Sequences that pass through the model at once, to save memory.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    vocabulary: Annotated[int | None, typer.Option(min=257, help="Tokens, instead of the model's.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens per sequence, instead of the model's.")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share of the documents to be scored on.")] = None,
    prompt: Prompts = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, data order and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes what there is.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto takes what the device is good at.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor; all cores unless told.")] = None,
    devices: Devices = None,
    sharded: Sharded = False,
    home: Home = HOME,
) -> None:
    """Train one model outside a sweep, score it, and keep its record and weights. Typed again, it goes on.

    It says nothing about which of two models is better: for that, `workbench run` trains both under several seeds.

        workbench train stlm-1m --corpus my.jsonl --tokens 2M --prompt "Once upon"
    """
    wishes: dict[str, Any] = {
        **{"tokens": _tokens(tokens), "batch": batch, "microbatch": microbatch, "learning_rate": learning_rate},
        **{"vocabulary": vocabulary, "context": context, "held_out": held_out, "corpus": corpus},
        "prompts": tuple(prompt or ()),
    }
    numerics = {"device": device, "precision": precision, "threads": threads, "devices": devices, "sharded": sharded}
    session, adapted = _planned(model, wishes, seed, numerics, home)
    from workbench.estimating import epochs
    from workbench.meter import Meter, show_beginning
    from workbench.running import Runner
    from workbench.single import refuse_too_large, train_single
    from workbench.terminal import console, note

    session.store.ensure_writable()
    if warning := refuse_too_large(session):
        note(warning)

    def say(text: str) -> None:
        console.print(f"[dim]{text}[/dim]")

    (facts,) = Runner(session.plan, session.store, say=say).prepare()
    show_beginning(
        session.plan, adapted, facts.training_tokens, epochs(session.plan, session.store)[session.plan.arms[0].name]
    )
    if facts.learned_vocabulary < facts.vocabulary:
        note(
            f"the corpus fills only {facts.learned_vocabulary:,} of the {facts.vocabulary:,} tokens; the others are "
            "trained to be unlikely and no more; --vocabulary asks for fewer"
        )
    session.store.save_plan(session.plan.hash, session.plan.document())
    with Meter() as meter:
        record = train_single(session, meter.tell, say)
    if record is None:
        again = shlex.join(["workbench", *sys.argv[1:]])
        console.print(f"Interrupted; its checkpoint is kept. To go on: {again}", soft_wrap=True)
        raise typer.Exit(130)
    _conclude(session, record)


def generate(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run's id (or its beginning), SWEEP:ARM, SWEEP:ARM:SEED, or a folder."),
    ],
    prompt: Annotated[str, typer.Option(help="What the text begins with; nothing unless told.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="At most so many; a text may end earlier.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.8,
    top: Annotated[int | None, typer.Option(min=0, help="Draw among so many likeliest tokens; 0 among all.")] = 50,
    seed: Annotated[int, typer.Option(help="Of what is drawn: the same seed, the same text.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="How many texts.")] = 1,
    exit: Annotated[int | None, typer.Option(min=1, help="Read the prediction after so many blocks.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes what there is.")] = "auto",
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Let a trained model write, token by token as they come.

    workbench generate quickstart:SwiGLU --prompt "We the people" --temperature 0.5
    """
    opened = _opened(run, home, corpus)
    from workbench.evaluation.generation import generate as write
    from workbench.evaluation.tasks import Drawing
    from workbench.typewriter import Typewriter

    drawing = Drawing(tokens=tokens, temperature=temperature, top=top or None)
    if exit is not None and exit > opened.architecture.layers:
        raise WorkbenchError(
            "the model has no such exit", where="--exit", expected=f"1 to {opened.architecture.layers}", got=exit
        )
    placed = resolve_device(device)
    typewriter = Typewriter(prompt, opened.tokenizer.spelling, samples, opened.tokenizer.prefix)
    texts = write(
        opened.model.to(placed),
        opened.tokenizer,
        [prompt] * samples,
        context=opened.architecture.context,
        drawing=drawing,
        seed=seed,
        exit=exit,
        device=placed,
        heard=typewriter.hear,
    )
    typewriter.end(texts)


def _planned(
    name: str, wishes: dict[str, Any], seed: int, numerics: dict[str, Any], home: Path
) -> tuple[Session, list[str]]:
    from workbench.cli.models import find_model

    found = find_model(name)  # says so where torch is not installed
    from workbench.session import session_of
    from workbench.single import Wishes, configured, cores, single_sweep
    from workbench.sweep import NumericsRequest

    configuration, adapted = configured(found.resolved, Wishes(**wishes))  # type: ignore[arg-type]
    for option, value, known in (
        ("--device", numerics["device"], ("auto", "cpu", "cuda")),
        ("--precision", numerics["precision"], ("auto", "float32", "bfloat16")),
    ):
        if value not in known:
            raise WorkbenchError("an option has no such value", where=option, expected=", ".join(known), got=value)
    devices = numerics["devices"] or 1
    threads = numerics["threads"] or max(1, cores() // devices)
    request = NumericsRequest.model_validate({**numerics, "devices": devices, "threads": threads})
    return session_of(single_sweep(name, configuration, seed, request), home, name), adapted


def _conclude(session: Session, record: Record) -> None:
    from workbench.meter import show_end
    from workbench.records import Status
    from workbench.terminal import console

    store, (trial,) = session.store, session.plan.trials
    weights = store.model_folder(trial.model_key) / "final.safetensors"
    finished = record.status is Status.FINISHED
    show_end(
        record,
        store.scores(record),
        store.curve(record),
        utilisation=_utilisation(session, record),
        weights=str(weights) if finished else None,
    )
    for sample in store.samples(record):
        console.print(f"\n[bold]{_harmless(sample['prompt'])}[/bold]{_harmless(sample['text'])}", soft_wrap=True)
    if not finished:
        raise typer.Exit(1)
    at_home = "" if store.home == HOME.absolute() else f" --home {shlex.quote(str(store.home))}"
    for number, command in enumerate(_next(session, record.run_id[:12])):
        console.print(("      " if number else "\nNext: ") + command + at_home, soft_wrap=True)


def _next(session: Session, run: str) -> list[str]:
    """Return what can be done with a trained model: not every model can write, or be expressed elsewhere."""
    from architectures.exchange import configuration

    architecture = session.plan.arms[0].configuration.architecture  # type: ignore[attr-defined]
    commands = ["workbench dashboard"]
    if not architecture.embedding.reads_bytes:
        commands.insert(0, f'workbench generate {run} --prompt "..."')
    with contextlib.suppress(ValueError):
        configuration(architecture)
        commands.append(f"workbench export-model {run} --out FOLDER")
    return commands


def _harmless(text: str) -> str:
    from rich.markup import escape

    from workbench.typewriter import printable

    return escape(printable(text))


def _utilisation(session: Session, record: Record) -> str | None:
    """Word the share of the device's peak that training used; None where the peak is not known."""
    if record.numerics is None or record.numerics.device != "cuda":
        return None
    import torch

    from architectures.compute import mfu

    device = torch.cuda.get_device_name()
    configuration: Any = session.plan.arms[0].configuration
    share = mfu(record.costs.tokens_per_second, configuration.architecture, device)
    return None if share is None else f"{share:.1%} of the peak of {device} (MFU, exact FLOPs)"


def _opened(run: str, home: Path, corpus: str | None) -> Opened:
    try:
        from workbench.opening import open_model
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    from workbench.store import Store

    return open_model(run, Store(home), corpus=corpus)


def _tokens(text: str | None) -> int | None:
    from workbench.cli.models import number

    return None if text is None else round(number(text, "--tokens"))
