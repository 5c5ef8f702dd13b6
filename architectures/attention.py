"""Attention: which heads there are, what each position may see, and the cache for generation.

A choice projects to queries, keys and values and leaves the mixing to `architectures.backends.attend`. It has `heads`
and `key_value_heads`, from which shapes follow, and a `mask`, from which backends and costs are known. One that can
read keys and values of earlier calls back from a cache says so (`caches`); a model with one that cannot recomputes
the sequence instead, and says so too (`Cache.recomputes`).

Refuses head counts that do not divide, and gradients through a cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from architectures.backends import attend
from architectures.component import Component, MisfitError, Shape
from architectures.layers import Linear
from architectures.masks import Mask, Places
from architectures.norms import NormModule

if TYPE_CHECKING:
    from architectures.positions import PositionModule
    from architectures.transformer import Batch

QUERY_KEY_EPSILON = 1e-6


class Growing:
    """A tensor that grows at the end of one dimension, in memory that doubles: appending is cheap on average."""

    def __init__(self, dim: int) -> None:
        self.dim, self.length = dim, 0
        self._memory: Tensor | None = None

    def append(self, x: Tensor) -> Tensor:
        """Append x and return everything so far.

        Raises:
            ValueError: if x wants a gradient.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("cache: expected a forward pass under torch.no_grad(), got one that records gradients")
        end = self.length + x.shape[self.dim]
        room = 0 if self._memory is None else self._memory.shape[self.dim]
        if self._memory is None or room < end:
            shape = list(x.shape)
            shape[self.dim] = max(end, 2 * room)
            grown = x.new_empty(shape)
            if self._memory is not None:
                grown.narrow(self.dim, 0, self.length).copy_(self._memory.narrow(self.dim, 0, self.length))
            self._memory = grown
        self._memory.narrow(self.dim, self.length, x.shape[self.dim]).copy_(x)
        self.length = end
        return self._memory.narrow(self.dim, 0, end)


@dataclass(eq=False)
class LayerCache:
    """Keys and values that one layer has seen, (batch, key_value_heads, time, head_width)."""

    keys: Growing = field(default_factory=lambda: Growing(2))
    values: Growing = field(default_factory=lambda: Growing(2))


class Cache:
    """What a model keeps of the tokens it has read, so that the next ones cost only themselves.

    Attributes:
        recomputes: Why this model reads the whole sequence again for every call; None if it does not.
        layers: Keys and values, by layer.
        tokens: int64 (batch, time) read so far, where the model recomputes.
        positions: Theirs, where the caller gives them.
        documents: Theirs, where the caller gives them.
        length: Tokens read so far.
    """

    def __init__(self, layers: int, recomputes: str | None = None) -> None:
        self.recomputes = recomputes
        self.layers = [LayerCache() for _ in range(layers)]
        self.tokens, self.positions, self.documents = Growing(-1), Growing(-1), Growing(-1)
        self.length = 0

    def layer(self, index: int) -> LayerCache | None:
        """Return the cache of one layer; None where the model recomputes."""
        return None if self.recomputes else self.layers[index]

    def whole(self, batch: Batch) -> Batch:
        """Return the batch with all tokens of earlier calls before it, for a model that recomputes."""
        places = self.extend(batch.tokens.shape[1], batch.positions, batch.documents)
        tokens = self.tokens.append(batch.tokens)
        return replace(batch, tokens=tokens, positions=places.k_positions, documents=places.k_documents)

    def extend(self, time: int, positions: Tensor | None, documents: Tensor | None) -> Places:
        """Count `time` new tokens and return where they, as queries, and all tokens so far, as keys, stand.

        Raises:
            ValueError: if positions or documents are given for some tokens and not for others.
        """
        for name, given, held in (("positions", positions, self.positions), ("documents", documents, self.documents)):
            if self.length and (given is None) != (held.length == 0):
                expected, got = ("none", "some") if given is not None else ("some", "none")
                raise ValueError(f"{name}: expected {expected}, as for the tokens in the cache, got {got}")
        self.length += time
        return Places(
            q_positions=positions,
            k_positions=None if positions is None else self.positions.append(positions),
            q_documents=documents,
            k_documents=None if documents is None else self.documents.append(documents),
        )


@dataclass(frozen=True)
class Pass:
    """What one forward pass carries to the attention of every layer.

    Attributes:
        position: The model's position module, owned by the model and lent to the layers.
        positions: int64 (time,) or (batch, time) by which queries and keys turn; None for the plain range.
        dropout: Rate for attention probabilities, 0 in evaluation.
        backend: A key of `BACKENDS`.
        places: Where queries and keys stand for masks and biases.
        cache: Keys and values that this layer has seen; None outside generation.
        dropping: Factor of every other dropout rate at this point of training, 0 in evaluation.
    """

    position: PositionModule
    positions: Tensor | None
    dropout: float
    backend: str
    places: Places = field(default_factory=Places)
    cache: LayerCache | None = None
    dropping: float = 1.0


class MultiHeadModule(nn.Module):
    """Projections to queries, keys and values, attention, and the projection back.

    The four stay separate parameters: fused, none of them would keep its noise when the number of heads changes.
    """

    def __init__(self, shape: Shape, mask: Mask, *, query_key_norm: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_width = shape.heads, shape.key_value_heads, shape.head_width
        self.mask = mask
        self.query = Linear(shape.width, shape.heads * shape.head_width, bias=bias)
        self.key = Linear(shape.width, shape.key_value_heads * shape.head_width, bias=bias)
        self.value = Linear(shape.width, shape.key_value_heads * shape.head_width, bias=bias)
        self.output = Linear(shape.heads * shape.head_width, shape.width, bias=bias)
        self.query_norm = self._norm() if query_key_norm else None
        self.key_norm = self._norm() if query_key_norm else None

    def _norm(self) -> NormModule:
        return NormModule(self.head_width, epsilon=QUERY_KEY_EPSILON, centred=False)

    def _normed(self, x: Tensor, norm: NormModule) -> Tensor:
        # autocast leaves the gain in float32; a norm of mixed precision has no fast kernel
        normed: Tensor = norm(x.to(norm.weight.dtype))
        return normed.to(x.dtype)

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Mix information between positions of x, (batch, time, width)."""
        batch, time, _ = x.shape
        q = self.query(x).view(batch, time, self.heads, self.head_width)
        k = self.key(x).view(batch, time, self.key_value_heads, self.head_width)
        v = self.value(x).view(batch, time, self.key_value_heads, self.head_width).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self._normed(q, self.query_norm), self._normed(k, self.key_norm)
        q, k = current.position.rotate(q.transpose(1, 2), k.transpose(1, 2), current.positions, current.places)
        if current.cache is not None:
            k, v = current.cache.keys.append(k), current.cache.values.append(v)
        mixed = attend(
            q,
            k,
            v,
            mask=self.mask,
            bias=current.position.bias(),
            places=current.places,
            dropout=current.dropout,
            backend=current.backend,
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, time, -1))  # type: ignore[no-any-return]


class MultiHead(Component):
    """Multi-head, grouped-query (arXiv:2305.13245) and multi-query (arXiv:1911.02150) causal attention.

    Attributes:
        heads: Query heads; divides the width of the residual stream.
        key_value_heads: Number of key and value heads, each shared by heads / key_value_heads query heads. None is as
            many as heads, and the same number written out is turned into None: one model, one specification. (STLM's
            "group size" is heads / key_value_heads; TinyLlama's "query groups" is key_value_heads.)
        window: A position sees the last `window` positions, itself included (arXiv:2004.05150, 2310.06825). None is
            all before it.
        query_key_norm: RMSNorm over each query and key head before positions turn them, with one gain per dimension
            that all heads of a layer share (arXiv:2010.04245, 2302.05442; the form of arXiv:2405.09818).
        bias: Whether the four projections have biases, as in GPT-2. That of the keys has an effect only where keys are
            turned or normed: otherwise it adds the same to all scores of a query.
    """

    kind: Literal["multi_head"] = "multi_head"
    caches: ClassVar[bool] = True
    heads: int = Field(gt=0)
    key_value_heads: int | None = Field(None, gt=0)
    window: int | None = Field(None, gt=0, json_schema_extra={"neutral": None})
    query_key_norm: bool = Field(False, json_schema_extra={"neutral": False})
    bias: bool = Field(False, json_schema_extra={"neutral": False})

    @model_validator(mode="after")
    def _divide_heads(self) -> Self:
        if self.key_value_heads is None:
            return self
        if self.heads % self.key_value_heads:
            raise ValueError(f"key_value_heads: expected a divisor of heads {self.heads}, got {self.key_value_heads}")
        if self.key_value_heads == self.heads:
            object.__setattr__(self, "key_value_heads", None)
        return self

    @property
    def mask(self) -> Mask:
        """Which keys a query may see."""
        return Mask(causal=True, window=self.window)

    def check(self, shape: Shape) -> None:
        """Refuse a width that does not divide into heads."""
        if shape.width % self.heads:
            raise MisfitError(f"a divisor of width {shape.width}", self.heads, field="heads")

    def build(self, shape: Shape) -> nn.Module:
        """Build the attention of one layer."""
        return MultiHeadModule(shape, self.mask, query_key_norm=self.query_key_norm, bias=self.bias)


Attention = Annotated[MultiHead, Field(discriminator="kind")]
