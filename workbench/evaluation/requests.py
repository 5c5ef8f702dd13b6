"""What is asked of a language model about a text: how likely is this continuation of that context?

Promises the tokens that lm-evaluation-harness 0.4.13 would score (`TemplateLM._encode_pair` and what `HFLM` does with
it): white space at the end of a context belongs to the continuation, the two are encoded as one text and then parted,
an empty context is an end_of_text, a model whose texts begin with a token of their own gets it first, and what does not
fit is cut from the left. Sequences that occur several times pass through the model once. A continuation that does not
fit is told (`fits`) and cut by nobody unasked (`shortened`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from workbench.data.tokenizer import Tokenizer
from workbench.evaluation.asking import ORDINARY, Asked
from workbench.evaluation.tasks import View


class Request(NamedTuple):
    """A context, which is given, and its continuation, which is scored; either text may be empty, not both."""

    context: str
    continuation: str


class Encoded(NamedTuple):
    """A request in tokens.

    Attributes:
        tokens: int64[tokens]: the context, the beginning of which may be cut, and the continuation.
        first_scored: Where in `tokens` the continuation begins; at least 1, as the first token is never scored.
        truncated: Whether the context was cut.
        fits: Whether the continuation fits the model's context; where it does not, nothing was cut.
    """

    tokens: np.ndarray
    first_scored: int
    truncated: bool = False
    fits: bool = True

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.first_scored


class Measured(NamedTuple):
    """What a model says of a request.

    Attributes:
        nats: Cost of the continuation given its context: minus its log-probability.
        tokens: How many tokens that is.
        greedy: Whether each of them was the likeliest; None where it was not asked.
    """

    nats: float
    tokens: int
    greedy: bool | None = None


def encode(requests: Iterable[Request], tokenizer: Tokenizer, context: int) -> list[Encoded]:
    """Return the tokens of every request, as lm-evaluation-harness takes them apart.

    Args:
        requests: What is asked.
        tokenizer: Of the model that is asked.
        context: The most tokens that pass through it; the last token of a request need not.
    """
    parted = [_parted(request) for request in requests]
    texts = dict.fromkeys(text for one in parted for text in (one.context, one.context + one.continuation))
    tokens = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
    found = []
    for before, continuation in parted:
        whole, given = tokens[before + continuation], len(tokens[before])
        if given == 0 or tokenizer.begin_of_text is not None:
            whole, given = tokenizer.begun(whole), given + 1
        # tokens may join over the edge, so that none would be left to score; the harness refuses such an item
        found.append(fitted(whole, min(given, max(1, len(whole) - 1)), context))
    return found


def encode_whole(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> list[Encoded]:
    """Return texts that are scored from the second token to the end_of_text after them.

    Args:
        texts: What is scored, none empty.
        tokenizer: Of the model that is asked.
        context: The most tokens that pass through it; of a longer text the last so many are scored.
    """
    tokens = [np.append(tokens, tokenizer.end_of_text) for tokens in tokenizer.encode_batch(list(texts))]
    return [shortened(Encoded(one, 1, fits=len(one) <= context + 1), context) for one in tokens]


def shortened(request: Encoded, context: int) -> Encoded:
    """Return a request that fits: where it did not, the beginning of its continuation is not scored either."""
    return request if request.fits else Encoded(request.tokens[-(context + 1) :], 1, truncated=True)


def fitted(tokens: np.ndarray, first_scored: int, context: int) -> Encoded:
    """Cut the beginning of a context such that `context` tokens pass through the model; never the continuation."""
    excess = len(tokens) - (context + 1)
    if excess <= 0:
        return Encoded(tokens, first_scored)
    if excess >= first_scored:
        return Encoded(tokens, first_scored, fits=False)
    return Encoded(tokens[excess:], first_scored - excess, truncated=True)


def measured(
    asked: Asked, requests: Sequence[Encoded], view: View = ORDINARY, *, greedy: bool = False
) -> list[Measured]:
    """Return what each continuation costs; equal sequences, and long beginnings that several share, run once.

    Args:
        asked: The model.
        requests: All of which fit its context.
        view: How it is read.
        greedy: Whether to find out, too, if the model would have written the continuation; needs logits.

    Raises:
        ValueError: for a request that does not fit.
    """
    if not all(request.fits for request in requests):
        raise ValueError("requests: expected only such as fit the context")
    keys = [(request.tokens.tobytes(), request.first_scored) for request in requests]
    distinct = dict(zip(keys, requests, strict=True))
    row_of = {key: row for row, key in enumerate(distinct)}
    sequences, given = zip(*((one.tokens, one.first_scored) for one in distinct.values()), strict=True)
    answers = asked.follow(sequences, given, view, greedy=greedy)
    found = []
    for key in keys:
        nats = answers["nats"][row_of[key]]
        likeliest = bool(answers["greedy"][row_of[key]].all()) if greedy else None
        found.append(Measured(float(nats.sum(dtype=np.float64)), len(nats), likeliest))
    return found


def _parted(request: Request) -> Request:
    """Move white space at the end of the context to the continuation, where byte-pair encodings want it."""
    context = request.context.rstrip()
    return Request(context, request.context[len(context) :] + request.continuation)
