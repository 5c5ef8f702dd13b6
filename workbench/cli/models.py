"""Commands on models and the machine: show, compare, export-model, doctor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.options import HOME, Corpus, Home
from workbench.errors import MissingExtra, SweepError, WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from architectures.architecture import Architecture
    from architectures.compute import Plausibility

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A preset (`workbench show` lists them) or an arm of a sweep: SWEEP:ARM.")
]
AT = 0.4  # share of a device's peak at which the examples of `show` are computed: what good code reaches
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556


@dataclass(frozen=True)
class Model:
    """What a user named: its architecture, and everything that was resolved about it."""

    name: str
    architecture: Architecture
    resolved: BaseModel
    source: str
    assumed: Mapping[str, str]


def show(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A preset, or SWEEP:ARM; without it, all presets.")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(help="Scale it to so many parameters (4M, 1.5B) in its own proportions.")
    ] = None,
    vocabulary: Annotated[int | None, typer.Option(min=2, help="With --parameters: another vocabulary.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="With --parameters: another training context.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Check a claim: tokens trained on (3T).")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Check a claim: number of GPUs.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Check a claim: which GPU (A100).")] = None,
    hours: Annotated[float | None, typer.Option(help="Check a claim: hours it took.")] = None,
) -> None:
    """Show a model: parameters by part, FLOPs by formula, memory, training time per device, and what is assumed.

    With --tokens, --gpus, --gpu and --hours it tells whether such a training run is possible at all:

        workbench show lokilm-1.4b --tokens 500B --gpus 8 --gpu A100 --hours 192
    """
    if model is None:
        _list_presets()
        return
    found = find_model(model)
    if parameters is not None:
        found = _scaled(found, parameters, vocabulary, context)
    elif vocabulary or context:
        raise WorkbenchError("--vocabulary and --context belong to --parameters", fix="add --parameters, as 4M")
    claim = {"--tokens": tokens, "--gpus": gpus, "--gpu": gpu, "--hours": hours}
    given = [name for name, value in claim.items() if value is not None]
    if given and len(given) < len(claim):
        raise WorkbenchError("a claim needs all of its figures", expected=", ".join(claim), got=", ".join(given))
    _show_size(found)
    if tokens is not None and gpus is not None and gpu is not None and hours is not None:
        _show_claim(found, number(tokens, "--tokens"), gpus, gpu, hours)


def compare(a: ModelName, b: ModelName) -> None:
    """Compare two models: what differs, parameters by part, FLOPs, and how far their runs are paired.

    workbench compare stlm-50m stlm-50m-simple-ffn

    workbench compare quickstart:ALiBi quickstart:SwiGLU
    """
    from architectures.accounting import coverage, flops_per_token, parameters
    from workbench.terminal import console

    one, other = find_model(a), find_model(b)
    _show_difference(one, other)
    counts = [parameters(model.architecture) for model in (one, other)]
    rows = [
        (part, f"{counts[0][part]:,}", f"{counts[1][part]:,}", f"{counts[1][part] - counts[0][part]:+,}")
        for part in counts[0]
        if counts[0][part] or counts[1][part]
    ]
    flops = [flops_per_token(model.architecture).training for model in (one, other)]
    rows.append(("FLOPs/token", f"{flops[0]:,.0f}", f"{flops[1]:,.0f}", f"{flops[1] / flops[0] - 1:+.1%}"))
    print_table(("", a, b, "difference"), rows)
    shared = coverage(one.architecture, other.architecture)
    same = one.architecture.initialisation == other.architecture.initialisation
    note = "" if same else "; but their initialisations differ, so none starts equal"
    console.print(
        f"\nUnder one seed {shared.total:.1%} of the second's parameters start from the noise they have in the first "
        f"({shared.without_embeddings:.1%} without embeddings){note}.",
        soft_wrap=True,
    )


def export_model(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A run's id (or its beginning), SWEEP:ARM, SWEEP:ARM:SEED, or a folder of weights."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for weights, configuration and tokenizer.")],
    seed: Annotated[int | None, typer.Option(help="With SWEEP:ARM, which of its seeds; the first unless told.")] = None,
    corpus: Corpus = None,
    home: Home = HOME,
) -> None:
    """Write a trained model in the format of Hugging Face, for `from_pretrained` or a push to the hub.

    Models that Llama or GPT-2 can express are written, with their tokenizer; others are refused with the field that
    prevents it.

    workbench export-model quickstart:SwiGLU --out exported
    """
    try:
        from workbench.opening import open_model
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    from architectures import exchange
    from workbench.store import Store
    from workbench.terminal import console

    sweep, separator, arm = run.rpartition(":")
    if separator and not arm.isdecimal():  # what cannot be exported is refused before the sweep is opened
        _refuse_inexpressible(run, _arm(run, sweep, arm).architecture)

    opened = open_model(run, Store(home), seed=seed, corpus=corpus)
    _refuse_inexpressible(run, opened.architecture)
    end = opened.tokenizer.end_of_text
    paths = exchange.export_model(opened.model, opened.architecture, out, end_of_text=end)
    for path in (*paths, *opened.tokenizer.publish(out, opened.architecture.context)):
        console.print(str(path), soft_wrap=True)


def _refuse_inexpressible(name: str, architecture: Architecture) -> None:
    from architectures import exchange

    try:
        exchange.configuration(architecture)
    except ValueError as error:
        raise SweepError("the model cannot be exported", where=name, got=error) from None


def doctor(home: Home = HOME) -> None:
    """Examine this machine: what works, what is absent and how to add it, what is broken. Exit code 1 if anything is.

    Absent options are no fault. Attention backends are tried, forward and backward, against the reference.
    """
    from rich.markup import escape

    from workbench.doctor import examine
    from workbench.terminal import console

    broken = 0
    colours = {"ok": "green", "absent": "dim", "broken": "bold red"}
    for check in examine(home):
        broken += check.state == "broken"
        mark = f"[{colours[check.state]}]{check.state:<7}[/]"
        console.print(f"{mark} {escape(f'{check.name:<21}')} {escape(check.told)}", soft_wrap=True)
    console.print(f"\n{broken} broken" if broken else "\nNothing is broken.")
    if broken:
        raise typer.Exit(1)


def find_model(name: str) -> Model:
    """Find a preset or an arm of a sweep.

    Raises:
        MissingExtra: where torch is not installed.
        SweepError: for a name that is neither, with what there is.
    """
    try:
        from architectures.presets import presets
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    known = presets()
    if name in known:
        one = known[name]
        return Model(name, one.architecture, one.architecture, one.source, one.assumed)
    sweep, separator, arm = name.rpartition(":")
    if not separator:
        expected = ", ".join(known) + ", or SWEEP:ARM (as quickstart:ALiBi)"
        raise SweepError(f"there is no model '{name}'", expected=expected, got=name)
    return _arm(name, sweep, arm)


def _arm(name: str, sweep_name: str, arm_name: str) -> Model:
    from workbench.loading import load_sweep

    sweep = load_sweep(sweep_name)
    try:
        from workbench.configuration import Configuration
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    arms = {sweep.baseline_name: sweep.baseline, **{arm.name: arm.configuration for arm in sweep.arms}}
    if arm_name not in arms:
        raise SweepError("the sweep has no such arm", where=sweep_name, expected=", ".join(arms), got=arm_name)
    configuration = arms[arm_name]
    if not isinstance(configuration, Configuration):
        raise SweepError(
            "an arm that is a command has no architecture the workbench knows", where=name, got="a trainer of your own"
        )
    return Model(name, configuration.architecture, configuration, f"{sweep_name}, arm {arm_name}", {})


def _scaled(model: Model, budget: str, vocabulary: int | None, context: int | None) -> Model:
    from architectures.scaling import scaled

    try:
        result = scaled(
            model.architecture, round(number(budget, "--parameters")), vocabulary=vocabulary, context=context
        )
    except ValueError as error:
        raise WorkbenchError(
            "no model of these proportions has so many parameters", where="--parameters", got=error
        ) from None
    changes = {path: f"{before} → {after}, to meet the budget" for path, (before, after) in result.changed.items()}
    source = f"{model.name} scaled to {budget} parameters: {model.source}"
    return Model(model.name, result.architecture, result.architecture, source, {**model.assumed, **changes})


def number(text: str, where: str) -> float:
    """Read 4M, 1.5B, 3T, 3e12 or 4,000,000.

    Raises:
        WorkbenchError: for what is no positive number, naming the option `where` it was given.
    """
    scale = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}.get(text[-1:].upper(), 1.0)
    try:
        value = float(text.rstrip("kKmMbBgGtT").replace(",", "")) * scale
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise WorkbenchError("a number cannot be read", where=where, expected="a positive one, as 4M or 1.5B", got=text)
    return value


def _list_presets() -> None:
    from architectures.accounting import parameters

    try:
        from architectures.presets import presets
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    rows = [
        (name, f"{parameters(one.architecture)['total']:,}", f"{len(one.assumed) or ''}", one.source)
        for name, one in presets().items()
    ]
    print_table(("preset", "parameters", "assumed", "source"), rows, left=(0, 3))


def _show_size(model: Model) -> None:
    from rich.markup import escape

    from architectures.accounting import PARTS, parameters
    from architectures.compute import flops_by_formula
    from workbench.terminal import console

    counts = parameters(model.architecture)
    console.print(f"[bold]{escape(model.name)}[/bold]  {counts['total']:,} parameters", soft_wrap=True)
    console.print(f"{escape(model.source)}\n", soft_wrap=True)
    rows = [(part, f"{counts[part]:,}", f"{counts[part] / counts['total']:.1%}") for part in PARTS if counts[part]]
    print_table(("part", "parameters", "share"), rows)
    flops = flops_by_formula(model.architecture)
    rows = [(name, f"{one.forward:,.0f}", f"{one.training:,.0f}") for name, one in flops.items()]
    console.print()
    print_table(("FLOPs per token", "forward", "training"), rows)
    for name, one in flops.items():
        console.print(f"[dim]{name}: {escape(one.formula.removeprefix(f'{name}: '))}[/dim]")
    _show_costs(model.architecture)
    if model.assumed:
        console.print("\nAssumed, not in the source:")
        for path, reason in model.assumed.items():
            console.print(f"  {escape(path)}: {escape(reason)}", soft_wrap=True)


def _show_costs(architecture: Architecture) -> None:
    from architectures.accounting import flops_per_token, parameters
    from architectures.compute import DEVICES, memory
    from workbench.terminal import console

    needed = memory(architecture, 1)
    console.print(
        f"\nMemory: {_bytes(needed.states)} of states with AdamW, and {_bytes(needed.activations)} of activations per "
        f"sequence of {architecture.context:,} tokens in a microbatch\n[dim]{needed.formula}[/dim]\n"
    )
    flops = flops_per_token(architecture).training
    tokens = TOKENS_PER_PARAMETER * parameters(architecture)["total"]
    rows = []
    for device in DEVICES:
        rate = AT * device.peak / flops
        rows.append((device.name, f"{device.peak / 1e12:g}", f"{rate:,.0f}", _duration(tokens / rate)))
    heading = f"time for {TOKENS_PER_PARAMETER} tokens per parameter"
    print_table(("device", "peak TFLOP/s", f"tokens/s at {AT:.0%} of it", heading), rows)
    console.print("[dim]peak: dense bfloat16, as NVIDIA states it; FLOPs: exact; per device[/dim]")


def _show_claim(model: Model, tokens: float, gpus: int, gpu: str, hours: float) -> None:
    from architectures.accounting import parameters
    from architectures.compute import flops_by_formula, plausibility
    from workbench.terminal import console

    console.print(f"\n[bold]{tokens:,.0f} tokens on {gpus} x {gpu} in {hours:g} hours[/bold]")
    count = parameters(model.architecture)["total"]
    rows = []
    for name, flops in flops_by_formula(model.architecture).items():
        try:
            implied = plausibility(tokens=tokens, count=count, devices=gpus, hours=hours, device=gpu, flops=flops)
        except ValueError as error:
            raise WorkbenchError("the claim has no meaning", got=error) from None
        rows.append((name, *_implied(implied)))
    print_table(("FLOPs", "tokens/s each", "TFLOP/s each", "of the peak", "verdict"), rows)


def _implied(implied: Plausibility) -> tuple[str, str, str, str]:
    told = {
        "impossible": "impossible: more than the device can do",
        "doubtful": "doubtful: more than well-tuned training reaches",
        "possible": "possible",
        "unknown": "unknown: no peak is known for this device",
    }
    share = f"{implied.utilisation:.0%}" if implied.utilisation is not None else "?"
    rate, work = f"{implied.tokens_per_second:,.0f}", f"{implied.flops_per_second / 1e12:,.0f}"
    return rate, work, share, told[implied.verdict]


def _show_difference(one: Model, other: Model) -> None:
    from workbench.identity import leaves
    from workbench.terminal import console

    whole = type(one.resolved) is type(other.resolved)
    ours, theirs = (leaves(model.resolved if whole else model.architecture) for model in (one, other))
    rows = [
        (path, str(ours.get(path, "–")), str(theirs.get(path, "–")))
        for path in {**ours, **theirs}
        if ours.get(path, "–") != theirs.get(path, "–")
    ]
    if rows:
        print_table(("field", one.name, other.name), rows, left=(0, 1, 2))
        console.print()
    else:
        console.print("Every field is equal.\n")


def print_table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: tuple[int, ...] = (0,)) -> None:
    """Print a table without lines; columns in `left` are words, the others numbers."""
    from rich.markup import escape
    from rich.table import Table

    from workbench.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(escape(heading), justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
