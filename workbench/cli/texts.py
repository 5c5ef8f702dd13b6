"""The command with which a trained model writes training data for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from workbench.cli.options import HOME, Home, resolve_device
from workbench.errors import MissingExtra, WorkbenchError

if TYPE_CHECKING:
    from workbench.data.benchmarks import Benchmark
    from workbench.writing import Manifest, Writer


def write(
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER", help="A run's id, SWEEP:ARM, a folder of weights, or a folder of a Hugging Face model."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write; a manifest is written beside it.")],
    texts: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    prompts: Annotated[
        str | None,
        typer.Option(help="A .txt, .jsonl or .parquet file (or folder): texts go on from how its documents begin."),
    ] = None,
    prompt_words: Annotated[int, typer.Option(min=1, help="How many words of a document are a prompt.")] = 8,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE of a benchmark of which no text may hold an item, as arc_easy=arc.jsonl."),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="How often a text that holds one is written at most.")] = 5,
    tokens: Annotated[int, typer.Option(min=1, help="At most so many in a text; it may end earlier.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 1.0,
    top: Annotated[int, typer.Option(min=0, help="Draw among so many likeliest tokens; 0 among all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of what is drawn: the same seed, the same texts.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda; auto takes what there is.")] = "auto",
    home: Home = HOME,
) -> None:
    """Have a trained model write texts for others to be trained on, free of the items of benchmarks.

    A text that shares 13 words in a row, or a whole short item, with a benchmark is written again, at most `--tries`
    times, and then left out; the manifest counts that. The file is a corpus like any other.

        workbench write quickstart:SwiGLU --texts 50 --out texts.jsonl
    """
    try:
        from workbench.evaluation.tasks import Drawing
        from workbench.writing import Wanted, manifest_of, write_texts
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "train") from None
    from workbench.terminal import console

    wanted = Wanted(
        texts=texts,
        drawing=Drawing(tokens=tokens, temperature=temperature, top=top or None),
        seed=seed,
        benchmarks=tuple(_benchmark(text) for text in benchmark or ()),
        tries=tries,
    )
    begun = _prompts(prompts, prompt_words, seed)
    writer = _writer(teacher, home, resolve_device(device))
    manifest = write_texts(writer, begun, wanted, out, lambda line: console.print(f"[dim]{line}[/dim]"))
    console.print(_said(manifest), soft_wrap=True)
    console.print(f"\n{out}\n{manifest_of(out)}", soft_wrap=True)


def _said(manifest: Manifest) -> str:
    said = f"{manifest.texts:,} texts"
    if manifest.wanted["benchmarks"]:
        said += f"; {manifest.overlapping:,} overlapped with a benchmark and were written again or left out"
    if manifest.left_out:
        said += f"; {manifest.left_out:,} left out after {manifest.wanted['tries']} tries"
    if manifest.prompts_left_out:
        said += f"; nothing was written from {manifest.prompts_left_out:,} prompts that overlap by themselves"
    return said + "."


def _writer(name: str, home: Path, device: str) -> Writer:
    from workbench.examining import weights_hash
    from workbench.opening import open_asked
    from workbench.store import Store
    from workbench.writing import Writer

    teacher = open_asked(name, Store(home))
    source = weights_hash(teacher.weights)
    return Writer(teacher.told, source, teacher.model.to(device), teacher.tokenizer, teacher.context, device)


def _prompts(path: str | None, words: int, seed: int) -> list[str]:
    if path is None:
        return [""]
    from workbench.data.corpora import Files, read_documents
    from workbench.writing import beginnings

    return beginnings(list(read_documents(Files(path=path))), words, seed)


def _benchmark(text: str) -> Benchmark:
    from workbench.data.benchmarks import Benchmark

    name, equals, path = text.partition("=")
    known: tuple[Any, ...] = get_args(Benchmark.model_fields["name"].annotation)
    if not (equals and path) or name not in known:
        raise WorkbenchError(
            "a benchmark is a name and a file",
            where="--benchmark",
            expected="NAME=FILE, the name one of " + ", ".join(known),
            got=text,
        )
    return Benchmark.model_validate({"name": name, "path": path})
