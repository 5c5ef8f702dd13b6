"""How the size of a vocabulary pays: what it does to text, to the model and to the speed of training on this machine.

A larger vocabulary makes text shorter and the embedding larger. LokiLM's authors also saw that sizes of low Hamming
weight train faster, "not consistently" (arXiv:2407.07370, section 2.1); so each size is shown with its ones in binary
beside the power of two that divides it, which is what matrix multiplication asks for and the likelier cause.

Promises that a step is timed as `plan` times it, the sizes in turn and several times over, so that a machine that slows
down slows all of them down. A step is timed on random tokens: what it costs does not depend on which they are.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from architectures.accounting import flops_per_token, parameters
from architectures.architecture import Architecture
from workbench.data.measured import measure
from workbench.data.tokenizer import BytePairs
from workbench.estimating import step_seconds
from workbench.records import Numerics
from workbench.training.recipe import Pretraining

ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One size of the vocabulary.

    Attributes:
        vocabulary: Declared tokens.
        ones: Of its binary form: the Hamming weight.
        divisor: The largest power of two that divides it.
        filled: Tokens that the corpus filled.
        bytes_per_token: Of held-out text.
        parameters: Of the model.
        embedding_share: Of them, in embedding and head.
        flops_per_byte: In training, FLOPs counted exactly.
        tokens_per_second: In training, on this machine.
        bytes_per_second: Of text, so.
    """

    vocabulary: int
    ones: int
    divisor: int
    filled: int
    bytes_per_token: float
    parameters: int
    embedding_share: float
    flops_per_byte: float
    tokens_per_second: float
    bytes_per_second: float


def study(
    architecture: Architecture,
    vocabularies: Sequence[int],
    training: Sequence[str],
    held_out: Sequence[str],
    numerics: Numerics,
    *,
    batch: int = 8,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Study a model under vocabularies of several sizes, byte pairs of the same documents.

    Args:
        architecture: The model; its own vocabulary does not matter.
        vocabularies: Sizes, 257 or more.
        training: Documents on which the tokenizers are trained.
        held_out: Documents on which bytes per token are measured.
        numerics: How arithmetic is done.
        batch: Windows in a step.
        say: Told what is being done.
    """
    stage = Pretraining(batch=batch)
    models = {size: architecture.vary(vocabulary=size) for size in dict.fromkeys(vocabularies)}
    seconds: dict[int, list[float]] = {size: [] for size in models}
    for number in range(ROUNDS):
        say(f"timing training steps, round {number + 1} of {ROUNDS}")
        for size, model in models.items():
            seconds[size].append(step_seconds(model, stage, numerics))
    rows = []
    for size, model in models.items():
        say(f"training a tokenizer of {size:,} tokens")
        tokenizer = BytePairs(vocabulary=size).train(training)
        counts, text = parameters(model), measure(tokenizer, held_out).bytes_per_token
        speed = batch * model.context / statistics.median(seconds[size])
        rows.append(
            Row(
                vocabulary=size,
                ones=size.bit_count(),
                divisor=size & -size,
                filled=tokenizer.learned,
                bytes_per_token=text,
                parameters=counts["total"],
                embedding_share=(counts["embedding"] + counts["head"]) / counts["total"],
                flops_per_byte=flops_per_token(model).training / text,
                tokens_per_second=speed,
                bytes_per_second=speed * text,
            )
        )
    return rows


def to_csv(rows: Sequence[Row]) -> str:
    """Return the rows as CSV, under the names of their fields."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(row) for row in rows)
    return text.getvalue()
