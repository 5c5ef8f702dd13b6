"""What tokens cost after a context, where many sequences begin alike: what they share goes through the model once.

Options of one question share its prompt, the sentences of a minimal pair their beginning, and questions with the same
examples those examples. Sequences that begin alike are laid out as one tree in one row: each token at its own position,
seeing what stands before it in its own branch and nothing else. Logits are made for scored tokens only, and equal
inputs count once however many targets follow them.

Promises what `measure_sequences` returns, to rounding. Where attention cannot tell branches apart (a model that
recomputes, attention without a mask, a model that is not ours), every distinct sequence passes through it as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from architectures.cross_entropy import to_odds
from architectures.transformer import Batch, Transformer
from workbench.evaluation.likeliest import Likeliest
from workbench.evaluation.scoring import LanguageModel, Progress, measure_sequences

SHARING = ("sdpa", "reference")  # backends that can be told what each position sees
TOGETHER = 256  # rows of logits at once, which then stay in a processor's cache
LONGEST = 256  # tokens in a row of several sequences, or twice those of the longest: more are not tried
ATTENTION = 0.0015  # what a token costs for every token of its row, relative to all else it costs; timed, small models


def measure_after(
    model: LanguageModel,
    sequences: Sequence[np.ndarray],
    given: Sequence[int],
    *,
    batch: int,
    device: torch.device | str,
    progress: Progress | None = None,
    greedy: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Return what each token from number `given` on costs in nats, given all those before it.

    Args:
        model: A causal model in evaluation mode, whose output is an `Output`.
        sequences: int64[two or more tokens] each.
        given: How many of each sequence's first tokens are not scored, at least 1.
        batch: Tokens in one forward pass, padding included.
        device: Where the model lies.
        progress: Told (sequences done, sequences in all).
        greedy: Whether to say, too, where a token is the likeliest ("greedy": 1, and 0 elsewhere).

    Returns:
        By measure, float32[tokens - given] for each sequence, in the order given.

    Raises:
        WorkbenchError: for `greedy` of a model without logits.
    """
    if greedy:
        Likeliest(model)  # refuses a model that cannot say it
    head = getattr(model, "head", None)
    if head is not None and not head.has_logits:  # targets made of bytes, which are scored in whole sequences
        whole = measure_sequences(model, sequences, batch=batch, device=device, progress=progress)["nats"]
        return {"nats": [value[first - 1 :] for value, first in zip(whole, given, strict=True)]}
    found = {name: [np.empty(0, np.float32)] * len(sequences) for name in (("nats", "greedy") if greedy else ("nats",))}
    rows = _rows([np.asarray(one, np.int64) for one in sequences], _shares(model))
    done = 0
    for together in _passes(rows, batch):
        hidden = _hidden(model, together, device)
        for number, measured in _measure(model, together, hidden, sequences, given, greedy):
            for name, values in measured.items():
                found[name][number] = values
        done += sum(len(row.ends) for row in together)
        if progress is not None:
            progress(done, len(sequences))
    return found


class _Row(NamedTuple):
    """Sequences in one row; a tree, if there are several.

    Attributes:
        tokens: int64[tokens].
        positions: int64[tokens]: how many tokens stand before each in its branch.
        paths: For every distinct input, where its tokens stand, int64[input].
        ends: (sequence, number of its path).
    """

    tokens: list[int]
    positions: list[int]
    paths: list[np.ndarray]
    ends: list[tuple[int, int]]


def _shares(model: LanguageModel) -> bool:
    """Whether attention can be told what each position of a row may see."""
    if not isinstance(model, Transformer) or model.recomputes is not None or model.backend not in SHARING:
        return False
    return all(getattr(cast(Any, block).attention, "mask", None) is not None for block in model.blocks)


def _rows(sequences: list[np.ndarray], share: bool) -> list[_Row]:
    """Lay out inputs, all tokens but the last: sorted, so that each shares most with the one before it."""
    by_input: dict[tuple[int, ...], list[int]] = {}
    for number, one in enumerate(sequences):
        by_input.setdefault(tuple(one[:-1].tolist()), []).append(number)
    inputs = sorted(by_input) if share else list(by_input)
    common = [0, *map(_alike, inputs, inputs[1:])]
    cuts = _cuts([*map(len, inputs)], common) if share else range(len(inputs) + 1)
    rows = []
    for begin, end in pairwise(cuts):
        row = _Row([], [], [], [])
        for number in range(begin, end):
            shared, begun = common[number] if number > begin else 0, len(row.tokens)
            row.tokens.extend(inputs[number][shared:])
            row.positions.extend(range(shared, len(inputs[number])))
            before = row.paths[-1][:shared] if shared else np.empty(0, np.int64)
            row.paths.append(np.concatenate([before, np.arange(begun, len(row.tokens))]))
            row.ends.extend((sequence, len(row.paths) - 1) for sequence in by_input[inputs[number]])
        rows.append(row)
    return rows


def _cuts(lengths: Sequence[int], common: Sequence[int]) -> list[int]:
    """Return where rows of sorted inputs begin, and the end: where they cost least together.

    A short row is cheap to attend to; but what its first input shares with the one before it is computed again.
    """
    most = max(LONGEST, 2 * max(lengths, default=0))
    costs, begins = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        least, begin, branches = inf, end, 0
        while begin > 0 and (tokens := lengths[begin - 1] + branches) <= most:
            begin -= 1
            branches += lengths[begin] - common[begin]
            cost = costs[begin] + tokens * (1 + ATTENTION * tokens)
            if cost < least:
                least, chosen = cost, begin
        costs.append(least)
        begins.append(chosen)
    cuts = [len(lengths)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return cuts[::-1]


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Return how many tokens two sequences have in common from their beginning."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _passes(rows: list[_Row], batch: int) -> Iterator[list[_Row]]:
    """Group rows, longest first, such that no group padded to its longest exceeds `batch` tokens."""
    ordered = sorted(rows, key=lambda row: -len(row.tokens))
    while ordered:
        count = max(1, batch // max(1, len(ordered[0].tokens)))
        yield ordered[:count]
        ordered = ordered[count:]


def _hidden(model: LanguageModel, rows: list[_Row], device: torch.device | str) -> Tensor:
    """Pass rows through the model; return hidden states, (rows, time, width)."""
    longest = max(len(row.tokens) for row in rows)
    tokens = np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row.tokens)] = row.tokens
    packed = torch.from_numpy(tokens).to(device)
    batch = Batch(packed, packed, torch.ones(packed.shape, device=device))
    if any(len(row.paths) > 1 for row in rows):
        positions, seen = _tree(rows, longest)
        batch = Batch(packed, packed, batch.weights, positions.to(device), seen=seen.to(device))
    with torch.no_grad():
        return cast(Tensor, model(batch).hidden)


def _tree(rows: list[_Row], longest: int) -> tuple[Tensor, Tensor]:
    """Return the position of every token, int64 (rows, time), and what it sees: its branch before it, and itself."""
    positions = np.zeros((len(rows), longest), np.int64)
    seen = np.zeros((len(rows), longest, longest), np.bool_)
    seen[:, np.arange(longest), np.arange(longest)] = True  # so that what only fills up a row sees something
    for number, row in enumerate(rows):
        positions[number, : len(row.tokens)] = row.positions
        for path in row.paths:
            # positions decide what stands before what; here, only that they are on one path
            seen[number, path[:, None], path[None]] = True
    return torch.from_numpy(positions), torch.from_numpy(seen)


def _measure(
    model: Any,
    rows: list[_Row],
    hidden: Tensor,
    sequences: Sequence[np.ndarray],
    given: Sequence[int],
    greedy: bool,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield every sequence of the rows with the measures of its scored tokens."""
    asked, states, targets = [], [], []
    for number, row in enumerate(rows):
        for sequence, path in row.ends:
            first = given[sequence]
            asked.append(sequence)
            states.append(number * hidden.shape[1] + row.paths[path][first - 1 :])
            targets.append(sequences[sequence][first:])
    # logits are made once for every state, however many targets follow it
    distinct, state = np.unique(np.concatenate(states), return_inverse=True)
    target = np.concatenate(targets)
    measured = _costs(model, hidden.flatten(0, 1)[torch.from_numpy(distinct).to(hidden.device)], state, target, greedy)
    ends = np.cumsum([len(one) for one in targets])[:-1]
    parts = {name: np.split(values, ends) for name, values in measured.items()}
    for place, sequence in enumerate(asked):
        yield sequence, {name: values[place] for name, values in parts.items()}


def _costs(model: Any, hidden: Tensor, state: np.ndarray, target: np.ndarray, greedy: bool) -> dict[str, np.ndarray]:
    """Return what targets cost after hidden states, and whether they are the likeliest.

    Args:
        model: One with logits.
        hidden: (states, width).
        state: int64[targets]: after which of them each target stands.
        target: int64[targets].
        greedy: Whether to say which are the likeliest.

    Returns:
        float32[targets] of each measure.
    """
    order = np.argsort(state, kind="stable")
    found = {name: np.empty(len(state), np.float32) for name in (("nats", "greedy") if greedy else ("nats",))}
    bounds = np.searchsorted(state[order], np.arange(0, len(hidden) + TOGETHER, TOGETHER))
    for number, some in enumerate(torch.split(hidden, TOGETHER)):
        here = order[bounds[number] : bounds[number + 1]]
        after = torch.from_numpy(state[here] - number * TOGETHER).to(hidden.device)
        wanted = torch.from_numpy(target[here]).to(hidden.device)
        with torch.no_grad():
            logits = model.logits(some).float()
            most, own = logits.amax(-1, keepdim=True), logits[after, wanted]
            if greedy:
                best = own >= most[after, 0]
                # of equal ones the first; looked for where it may be
                best[best.clone()] = logits[after[best]].argmax(-1) == wanted[best]
                found["greedy"][here] = best.cpu().numpy()
            total = to_odds(logits, most)[1]
            found["nats"][here] = (total.log()[after, 0] + (most[after, 0] - own)).cpu().numpy()
    return found
