"""One entry, `attend`, with interchangeable backends.

Masks and biases are descriptions (`architectures.masks`). Each backend lowers them in its own way, or says why it
cannot; a dense bias exists only inside the lowering of a backend that needs one. A backend changes what attention
costs, never what it computes: every entry of `BACKENDS` is held to `reference` in forward and backward.

Under `torch.vmap` over models of one architecture, the models are folded into the batch: no backend sees them. Where
probabilities are dropped they pass one after the other, as each has a stream of its own.

Refuses an unknown backend, a backend that objects to the case, and more plain queries than keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from architectures import kernels
from architectures.drawing import each
from architectures.masks import Bias, Case, Mask, NoBias, Places, dense, ordered


@dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
        compute: (q, k, v, mask, bias, places, dropout) to the mixed values.
        objection: Why this backend cannot do a case, or None if it can.
    """

    compute: Callable[[Tensor, Tensor, Tensor, Mask, Bias, Places, float], Tensor]
    objection: Callable[[Case], str | None]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Mask,
    bias: Bias,
    places: Places | None = None,
    dropout: float = 0.0,
    backend: str = "sdpa",
) -> Tensor:
    """Mix values by softmax(q k^T / sqrt(head_width) + bias), masked.

    Args:
        q: Queries, (batch, heads, time, head_width).
        k: Keys, (batch, key_value_heads, time, head_width); heads share them in consecutive groups.
        v: Values, shaped as the keys.
        mask: Which keys a query may see; every query must see at least one.
        bias: What is added to the scores.
        places: Where queries and keys stand; None is one document in the plain range 0, 1, 2, ..., of which the
            queries are the last.
        dropout: Rate at which attention probabilities are dropped.
        backend: A key of `BACKENDS`.

    Returns:
        Mixed values, shaped and typed as q.

    Raises:
        ValueError: for an unknown backend, one that objects to this case, or more queries than keys of a plain range.
    """
    chosen = backend_named(backend)
    places = places or Places()
    if places.increasing and not places.documents and ordered(mask, bias):
        places = Places()
    if places.q_positions is None and q.shape[2] > k.shape[2]:
        raise ValueError(f"places: expected positions for more queries than keys, got {q.shape[2]} and {k.shape[2]}")
    training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    case = Case(
        mask=mask,
        bias=bias,
        device=q.device.type,
        dtype=q.dtype,
        head_width=q.shape[3],
        plain=places.plain,
        documents=places.documents,
        dropout=dropout > 0,
        training=training,
    )
    objection = chosen.objection(case)
    if objection:
        raise ValueError(f"backend: expected one that supports this attention, got '{backend}': {objection}")
    if torch._C._functorch.is_batchedtensor(q):
        where = places.q_positions, places.k_positions, places.q_documents, places.k_documents
        return cast(Tensor, _Folded.apply(q, k, v, *where, places, chosen, mask, bias, dropout))  # type: ignore[no-untyped-call]
    return chosen.compute(q, k, v, mask, bias, places, dropout)


def backend_named(name: str) -> Backend:
    """Return an entry of `BACKENDS`.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got '{name}'")
    return BACKENDS[name]


def objections(case: Case) -> dict[str, str | None]:
    """Return, for every backend, why it cannot do the case, or None."""
    return {name: backend.objection(case) for name, backend in BACKENDS.items()}


class _Folded(torch.autograd.Function):
    """Attention of several models at once, as one of so many times the sequences.

    Torch's attention has no rule for `vmap` on a CPU, and falls back to one model after the other. What stands in
    `vmap` is recorded by autograd as usual, so that there is no backward pass to write.
    """

    @staticmethod
    def forward(*_: Any) -> Tensor:
        """Refuse to be called outside `vmap`."""
        raise RuntimeError("attention of several models: expected a call within torch.vmap, got one outside")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[Tensor, int]:
        """Return the mixed values, (models, batch, heads, time, head_width), and where the models stand."""
        models, tensors, dims = info.batch_size, given[:7], in_dims[:7]
        places, chosen, mask, bias, dropout = given[7:]
        if dropout:  # every model draws from its own stream
            rows = [_of_model(tensors, dims, model) for model in range(models)]
            apart = places.once("apart", lambda: [_places(row[3:], places.increasing) for row in rows])
            parts = [
                chosen.compute(*rows[model][:3], mask, bias, apart[model], dropout)
                for model in each(models, tensors[0].device.type)
            ]
            return torch.stack(parts), 0
        q, k, v, *where = _folded(tensors, dims, models)
        folded = places.once("folded", lambda: _places(where, places.increasing))
        mixed: Tensor = chosen.compute(q, k, v, mask, bias, folded, dropout)
        return mixed.reshape(models, -1, *mixed.shape[1:]), 0


def _places(where: Sequence[Any], increasing: bool) -> Places:
    q_positions, k_positions, q_documents, k_documents = where
    return Places(q_positions, k_positions, q_documents, k_documents, increasing)


def _of_model(tensors: Sequence[Any], dims: Sequence[int | None], model: int) -> list[Any]:
    """Return what belongs to one model, which stands in `dims` (None: the same for all)."""
    return [x if dim is None else x.select(dim, model) for x, dim in zip(tensors, dims, strict=True)]


def _folded(tensors: Sequence[Any], dims: Sequence[int | None], models: int) -> Iterator[Any]:
    """Yield each tensor with the models, which stand in `dims` (None: the same for all), put into the batch."""
    for x, dim in zip(tensors, dims, strict=True):
        if dim is not None:
            yield x.movedim(dim, 0).flatten(0, 1)
        else:
            yield x if x is None or x.dim() == 1 else x.expand(models, *x.shape).flatten(0, 1)


def _attend_by_reference(
    q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Bias, places: Places, dropout: float
) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        group = q.shape[1] // k.shape[1]
        keys, values = (x.float().repeat_interleave(group, dim=1) for x in (k, v))
        scores = q.float() @ keys.transpose(2, 3) / q.shape[3] ** 0.5
        addend = dense(mask, bias, places, q.shape[2], k.shape[2], torch.float32, q.device)
        probabilities = (scores if addend is None else scores + addend).softmax(dim=-1)
        return (functional.dropout(probabilities, dropout) @ values).to(q.dtype)


def _attend_by_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Bias, places: Places, dropout: float) -> Tensor:
    grouped, keys = q.shape[1] != k.shape[1], k.shape[2]
    square = places.plain and not places.documents and q.shape[2] == keys and mask.at(keys).window is None
    if square and isinstance(bias, NoBias):
        return functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=mask.causal, enable_gqa=grouped
        )
    addend = dense(mask, bias, places, q.shape[2], keys, q.dtype, q.device)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=addend, dropout_p=dropout, enable_gqa=grouped)


def _no_objection(case: Case) -> str | None:
    return None


BACKENDS: dict[str, Backend] = {
    "reference": Backend(_attend_by_reference, _no_objection),
    "sdpa": Backend(_attend_by_sdpa, _no_objection),
    "flex": Backend(kernels.attend_by_flex, kernels.objection_of_flex),
    "flash": Backend(kernels.attend_by_flash, kernels.objection_of_flash),
}
