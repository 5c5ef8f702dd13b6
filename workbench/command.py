"""`Command`: the user's own trainer as an arm, run by our queue and judged by our statistics.

The command line is split once and never sees a shell; `{seed}`, `{out}` and the declared fields are filled in. It must
leave `scores.csv` or `scores.parquet` in `{out}`. Its identity is the command, its declared fields and the content of
the files it names. How far its runs are paired is the user's declaration: the workbench cannot prove it, and says so.
"""

from __future__ import annotations

import hashlib
import shlex
import string
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from workbench.errors import SweepError
from workbench.identity import SCHEMA, digest, setting
from workbench.records import Seeds
from workbench.sweep import Variant

Value = int | float | str | bool


class Command(Variant):
    """A trainer outside the workbench.

    Attributes:
        command: `python train.py --seed {seed} --width {width} --out {out}`; run in `folder`.
        fields: What arms may vary, each used in the command: `{"width": 128}`.
        files: Files whose content belongs to the identity (the script, its configuration); relative to `folder`.
        folder: Working directory, by default that of the sweep file.
        tokens, parameters: For the tables, if the user knows them.
    """

    command: str = Field(min_length=1)
    fields: dict[str, Value] = Field(default_factory=dict)
    files: tuple[str, ...] = ()
    folder: str = setting(default=".", effect="efficiency")
    tokens: int | None = setting(default=None, effect="efficiency")
    parameters: int | None = setting(default=None, effect="efficiency")

    @model_validator(mode="after")
    def _placeholders_are_known_and_used(self) -> Self:
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(self.command) if name is not None}
            shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"command: cannot be read: {error}") from None
        known = {"seed", "out", *self.fields}
        if unknown := sorted(used - known):
            raise ValueError(f"command: expected placeholders among {sorted(known)}, got {{{unknown[0]}}}")
        if missing := sorted(known - used):
            raise ValueError(f"command: expected every placeholder to be used, got no {{{missing[0]}}}")
        return self

    def arguments(self, seed: int, out: Path) -> list[str]:
        """Return the argument list for one run: split first and filled in after, so that values cannot add words."""
        values = {**self.fields, "seed": seed, "out": str(out)}
        return [part.format(**values) for part in shlex.split(self.command)]

    def model_id(self, fingerprint: str, seeds: Seeds) -> str:
        """Identify one run's model: command, declared fields, content of the named files, seed."""
        return digest(SCHEMA, "command", self.command, self.fields, self.file_hashes(), seeds)

    def score_id(self, model_id: str) -> str:
        """Identify the scores: the command evaluates by itself, so they go with its model."""
        return digest(SCHEMA, model_id, "scores of the command")

    def file_hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every named file.

        Raises:
            SweepError: if one cannot be read.
        """
        hashes = {}
        for name in self.files:
            path = Path(self.folder) / name
            try:
                hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise SweepError(
                    "a file named by a command arm cannot be read", where=path, got=error.strerror or str(error)
                ) from None
        return hashes

    def size(self) -> dict[str, Any]:
        """Return what the user declared about parameters and tokens; nothing here is measured."""
        unknown = dict.fromkeys(("flops_per_token", "flops_formula", "steps"))
        return {"parameters": self.parameters, "tokens": self.tokens, **unknown}

    def paired_with(self, baseline: Variant, same_seeds: bool) -> dict[str, Any]:
        """Return that pairing is declared by the shared seed, not proven."""
        return {"pairing": "declared" if same_seeds else "none", "coverage": None}
