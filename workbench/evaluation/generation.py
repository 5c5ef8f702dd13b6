"""Text that a trained model writes: greedy or drawn, token by token, each new one costing only itself.

Promises that a text follows from model, prompt and seed alone: every prompt draws from a named stream of its own, so
that (to rounding) it does not matter what else is written at the same time, and that a model never sees more than the
context it was trained on. Where that is full, it reads the last half of it again and goes on. Refuses a model that has
no probabilities of tokens, such as one over bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from architectures.transformer import Batch, Transformer
from workbench.data.tokenizer import Tokenizer
from workbench.errors import WorkbenchError
from workbench.evaluation.scoring import evaluating
from workbench.evaluation.tasks import Drawing
from workbench.seeds import generator

# Told (number of the prompt, token) as soon as the token is there.
Heard = Callable[[int, int], None]


def generate(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    context: int,
    drawing: Drawing | None = None,
    seed: int = 0,
    exit: int | None = None,
    device: torch.device | str = "cpu",
    autocast: AbstractContextManager[Any] | None = None,
    heard: Heard | None = None,
) -> list[str]:
    """Return what the model writes after each prompt, the prompt not included.

    Every prompt is the beginning of a document. A prompt that is given several times is answered several times, each
    time from another stream: the first copy as if it had been given once.

    Args:
        model: With logits; left in the mode in which it came.
        tokenizer: The one it was trained with.
        prompts: Any texts, the empty one included.
        context: The training context, in tokens.
        drawing: How many tokens, and how each is chosen.
        seed: Of the streams tokens are drawn from.
        exit: Read the prediction after so many blocks; None is all of them.
        device: Where the model lies.
        autocast: Precision under which it runs; none is float32.
        heard: Told every token as it comes; end_of_text, which ends a text, is not told.

    Raises:
        WorkbenchError: if the model has no logits.
        ValueError: for an exit that the model does not have.
    """
    drawing = drawing or Drawing()
    begun = [tokenizer.begun(tokens) for tokens in tokenizer.encode_batch(list(prompts))]
    with evaluating(model), autocast or contextlib.nullcontext():
        written = extend(
            model,
            begun,
            context=context,
            drawing=drawing,
            streams=[generator(seed, name) for name in _streams(prompts)],
            stop=tokenizer.end_of_text,
            exit=exit,
            device=device,
            heard=heard,
        )
    return [tokenizer.decode(tokens, continued=bool(prompt)) for tokens, prompt in zip(written, prompts, strict=True)]


def extend(
    model: Transformer,
    sequences: Sequence[np.ndarray],
    *,
    context: int,
    drawing: Drawing,
    streams: Sequence[np.random.Generator],
    stop: int | None = None,
    exit: int | None = None,
    device: torch.device | str = "cpu",
    heard: Heard | None = None,
) -> list[np.ndarray]:
    """Return the tokens that follow each sequence, int64[at most drawing.tokens], without `stop`, which ends them.

    Sequences of equal length pass through the model together, so that nothing has to be padded.

    Args:
        model: In evaluation mode.
        sequences: int64[one or more tokens] each.
        context: The most tokens that the model sees.
        drawing: How many tokens, and how each is chosen.
        streams: One per sequence; a greedy drawing takes nothing from them.
        stop: The token that ends a text; None where nothing does.
        exit: Blocks to pass through; None is all of them.
        device: Where the model lies.
        heard: Told (number of the sequence, token) as tokens come.

    Raises:
        WorkbenchError: if the model has no logits.
    """
    if not model.head.has_logits:
        raise WorkbenchError(
            "the model cannot write text",
            expected="one with a probability for every token, such as embedding table",
            got=f"{type(model.head).__name__}, which has the cost of given text only",
        )
    written: list[list[int]] = [[] for _ in sequences]
    for rows in _equally_long(sequences):
        seen = torch.from_numpy(np.stack([sequences[row] for row in rows])).to(device)
        going = set(rows)
        for _, logits in zip(range(drawing.tokens), chain := _Chain(model, seen, context, exit), strict=False):
            chosen = [choose(one, drawing, streams[row]) for row, one in zip(rows, logits, strict=True)]
            for row, token in zip(rows, chosen, strict=True):
                if row in going and token == stop:
                    going.remove(row)
                elif row in going:
                    written[row].append(token)
                    if heard is not None:
                        heard(row, token)
            if not going:
                break
            chain.append(torch.tensor(chosen, device=device)[:, None])
    return [np.array(tokens, np.int64) for tokens in written]


def choose(logits: np.ndarray, drawing: Drawing, stream: np.random.Generator) -> int:
    """Choose a token by its logits, float64 (vocabulary,): the likeliest, or one drawn by inverse transform.

    Tokens are drawn in the order of their ids, so that runs which share a stream choose alike where they agree.
    """
    if drawing.temperature == 0:
        return int(logits.argmax())
    scaled = logits / drawing.temperature
    if drawing.top is not None and drawing.top < len(scaled):
        scaled = np.where(scaled >= np.partition(scaled, -drawing.top)[-drawing.top], scaled, -np.inf)
    cumulated = np.exp(scaled - scaled.max()).cumsum()
    return int(np.searchsorted(cumulated, stream.random() * cumulated[-1], side="right"))


class _Chain:
    """Sequences of equal length that grow: yields the logits after what is there, float64 (sequences, vocabulary)."""

    def __init__(self, model: Transformer, seen: Tensor, context: int, exit: int | None) -> None:
        self._model, self._seen, self._context, self._exit = model, seen[:, -context:], context, exit
        self._cache, self._unread = model.cache(), self._seen

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            if self._cache.length + self._unread.shape[1] > self._context:
                self._cache, self._unread = self._model.cache(), self._seen[:, -max(1, self._context // 2) :]
            unread = self._unread
            batch = Batch(unread, unread, torch.ones(unread.shape, device=unread.device))
            with torch.no_grad():
                hidden = self._model(batch, cache=self._cache, exit=self._exit).hidden[:, -1]
                logits = self._model.logits(hidden)
            yield logits.double().cpu().numpy()

    def append(self, tokens: Tensor) -> None:
        """Add one token to every sequence, (sequences, 1)."""
        self._seen, self._unread = torch.cat([self._seen, tokens], dim=1)[:, -self._context :], tokens


def _equally_long(sequences: Sequence[np.ndarray]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for row, sequence in enumerate(sequences):
        rows.setdefault(len(sequence), []).append(row)
    return list(rows.values())


def _streams(prompts: Sequence[str]) -> Iterator[str]:
    """Name the stream of every prompt: by its text and which copy it is, never by its place among others."""
    copies: Counter[str] = Counter()
    for prompt in prompts:
        yield f"generate/{hashlib.sha256(prompt.encode()).hexdigest()}/{copies[prompt]}"
        copies[prompt] += 1
