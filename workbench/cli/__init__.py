"""The command line: thin. Every command imports what it needs when it runs, so that help is there at once."""

from __future__ import annotations

import sys

import typer

from workbench.cli import data, evaluations, models, results, runs, sweeps, texts, tokenizers
from workbench.errors import WorkbenchError

app = typer.Typer(
    name="workbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Tells whether an architecture choice is really better, or only lucky.

Name a baseline and one change; the workbench trains both under the same seeds and says, with a known error rate,
whether the change beats the noise. The usual order: **plan**, **run**, **dashboard**, **export**. Results from
elsewhere: **analyze**. How far to trust it all: **calibrate**; where the noise comes from: **variance**.
""",
)

for command in (
    sweeps.sweeps,
    sweeps.plan,
    sweeps.prepare,
    data.data,
    sweeps.run,
    sweeps.work,
    sweeps.rank,
    sweeps.sync,
    sweeps.export,
    sweeps.dashboard,
    results.analyze,
    results.calibrate,
    results.variance,
    runs.train,
    runs.generate,
    evaluations.evaluate,
    texts.write,
    models.show,
    models.compare,
    models.export_model,
    models.doctor,
):
    app.command()(command)
app.add_typer(tokenizers.tokenizer, name="tokenizer")


def main() -> None:
    """Run the command line; a user's mistake becomes one message and exit code 2."""
    try:
        app()
    except WorkbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
