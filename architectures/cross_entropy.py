"""The cost of targets under a linear map to a vocabulary, for CPUs: in pieces whose logits stay in the cache.

What autograd would make of the pieces has each of them write a gradient of the whole table and add it to the last one;
here they add to one gradient in place, and what the backward pass needs takes the place of the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_odds(logits: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """Turn logits, (rows, vocabulary), into exp(logit - largest) in their own memory; return these and their sum.

    A target costs log(sum) + (largest - logit). `most` is the largest logit of each row, (rows, 1), as is the sum.
    """
    odds = logits.sub_(most).exp_()
    return odds, odds.sum(-1, keepdim=True)


class LinearCrossEntropy(torch.autograd.Function):
    """-log softmax(rows @ table^T)[target] of every row, with its own backward pass.

    With p the probabilities, of which exp(logit - largest) and its sum are kept: d logits = (p - [target]) * gradient.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, targets: Tensor, pieces: int) -> Tensor:
        """Return nats, (rows,), of rows, (rows, width), under a table, (vocabulary, width), `pieces` rows at a time."""
        kept, nats = [], []
        for some, wanted in zip(torch.split(rows, pieces), torch.split(targets, pieces), strict=True):
            logits = some @ table.t()
            most, own = logits.amax(-1, keepdim=True), logits.gather(-1, wanted[:, None])
            odds, total = to_odds(logits, most)
            nats.append((total.log() + (most - own))[:, 0])
            kept += [odds, total]
        ctx.pieces = pieces
        ctx.save_for_backward(rows, table, targets, *kept)
        return torch.cat(nats)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of rows and table."""
        rows, table, targets, *kept = ctx.saved_tensors
        of_rows, of_table = torch.empty_like(rows), torch.zeros_like(table)
        parts = zip(*(torch.split(x, ctx.pieces) for x in (rows, targets, gradient[:, None], of_rows)), strict=True)
        for (some, wanted, cost, out), odds, total in zip(parts, kept[::2], kept[1::2], strict=True):
            of_logits = odds * (cost / total)
            of_logits.scatter_add_(-1, wanted[:, None], -cost)
            torch.mm(of_logits, table, out=out)
            of_table.addmm_(of_logits.t(), some)
        return of_rows, of_table, None, None
