"""The model: `Architecture` has one field per axis, `Transformer` is what it builds.

This is the only file that knows all axes. Promises that an impossible combination cannot be written: it is refused when
the architecture is made, with the field's path, what was expected and what was got. Parameter names are roles
(`blocks.3.attention.query.weight`), the same in every variant: they are the key by which variants are paired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from architectures.attention import Attention, Cache, Pass
from architectures.backends import backend_named, objections
from architectures.component import Component, MisfitError, Shape
from architectures.embeddings import Embedding, Table, TokenHead
from architectures.feedforward import FeedForward, FeedForwardModule
from architectures.initialisation import Gpt2, Initialisation
from architectures.layers import TokenTable
from architectures.masks import Case, Places
from architectures.norms import NoNorm, Norm, RMSNorm
from architectures.positions import Position, PositionModule
from architectures.residual import Parallel, PreNorm, Residual
from architectures.sharing import NoSharing, Sharing


@dataclass(frozen=True)
class Batch:
    """One batch of sequences.

    Attributes:
        tokens: int64 (batch, time).
        targets: int64 (batch, time): the token that follows each token.
        weights: float32 (batch, time): how much each target counts; applied by the caller, never by the model.
        positions: int64 (time,) or (batch, time); None is the plain range 0, 1, 2, ...
        documents: int64 (batch, time): a position sees its own document only, whatever the numbers. None where every
            sequence is one document. Positions restart where `positions` says so, not by themselves.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor | None = None
    documents: Tensor | None = None


@dataclass(frozen=True)
class Output:
    """What a forward pass leaves: hidden states after the last norm, (batch, time, width)."""

    hidden: Tensor


class Dropout(Component):
    """Rates at which activations are dropped in training.

    Attributes:
        embedding: Of the embedded tokens.
        attention: Of attention probabilities.
        residual: Of what attention and feed-forward add to the residual stream.
        feed_forward: Of the hidden activations of the feed-forward.
        feed_forward_output: Of what feed-forward adds, where that differs from what attention adds; None is as
            `residual`, and that same rate written out is turned into None. (STLM drops what attention adds only:
            `Dropout(embedding=0.1, attention=0.1, residual=0.1, feed_forward_output=0.0)`.)
    """

    embedding: float = Field(0.0, ge=0, lt=1)
    attention: float = Field(0.0, ge=0, lt=1)
    residual: float = Field(0.0, ge=0, lt=1)
    feed_forward: float = Field(0.0, ge=0, lt=1, json_schema_extra={"neutral": 0.0})
    feed_forward_output: float | None = Field(None, ge=0, lt=1, json_schema_extra={"neutral": None})

    @model_validator(mode="after")
    def _one_spelling(self) -> Self:
        if self.feed_forward_output == self.residual:
            object.__setattr__(self, "feed_forward_output", None)
        return self


class Architecture(Component):
    """A model, one field per axis.

    Attributes:
        width: Width of the residual stream.
        layers: Number of blocks.
        context: Tokens of a training sequence; the most that learned positions can represent.
        vocabulary: Distinct tokens.
        position: Where a token stands.
        attention: How positions exchange information.
        feed_forward: How each position is transformed by itself.
        norm: The norm, wherever there is one.
        residual: How sublayers join the residual stream.
        embedding: Token table and head.
        sharing: Which layers use the same matrices.
        initialisation: Where parameters start.
        dropout: What is dropped in training.
    """

    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    context: int = Field(gt=0, json_schema_extra={"effect": "training"})
    vocabulary: int = Field(gt=1)
    position: Position
    attention: Attention
    feed_forward: FeedForward
    norm: Norm = RMSNorm()
    residual: Residual = PreNorm()
    embedding: Embedding = Table()
    sharing: Sharing = Field(NoSharing(), json_schema_extra={"neutral": {"kind": "none"}})
    initialisation: Initialisation = Field(Gpt2(), json_schema_extra={"effect": "initialisation"})
    dropout: Dropout = Field(Dropout(), json_schema_extra={"effect": "training"})

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        axes = ("attention", "position", "feed_forward", "norm", "residual", "embedding", "sharing", "initialisation")
        for axis in axes:
            try:
                getattr(self, axis).check(self.shape())
            except MisfitError as misfit:
                raise ValueError(misfit.within(axis)) from None
        if isinstance(self.norm, NoNorm) and not isinstance(self.residual, PreNorm | Parallel):
            got = f"{self.residual.kind}, which without norms is the same model under another name"
            raise ValueError(f"residual: expected pre_norm or parallel where norm is none, got {got}")
        if self.dropout.feed_forward and not getattr(self.feed_forward, "drops_hidden", False):
            expected = f"0, as {type(self.feed_forward).__name__} cannot drop its hidden activations"
            raise ValueError(f"dropout.feed_forward: expected {expected}, got {self.dropout.feed_forward}")
        return self

    def reach(self) -> int | None:
        """Return the longest sequence, in tokens, that the model can represent; None where there is no limit.

        A limit is the choice's own (`Learned.reach`); positions without one are defined beyond the training context.
        """
        limit = getattr(self.position, "reach", None)
        return limit(self.context) if limit else None

    def shape(self, layer: int = 0) -> Shape:
        """Return the sizes for which the components of one layer are built."""
        heads = self.attention.heads
        return Shape(
            width=self.width,
            heads=heads,
            key_value_heads=self.attention.key_value_heads or heads,
            head_width=self.width // heads,
            layers=self.layers,
            layer=layer,
            context=self.context,
            vocabulary=self.vocabulary,
        )

    def outline(self) -> Transformer:
        """Build the model on the meta device: names and shapes of its parameters, no memory.

        Raises:
            ValueError: if a component registers a buffer; it could not be initialised, and would be cast.
        """
        with torch.device("meta"):
            model = Transformer(self)
        for name, _ in model.named_buffers():
            raise ValueError(f"{name}: expected parameters only, got a buffer; compute constants in a cached function")
        return model

    def build(self, *, backend: str = "sdpa") -> Transformer:
        """Build the model in float32 on the CPU, every parameter NaN until `initialise` sets it.

        Torch's global generator is neither read nor advanced.

        Raises:
            ValueError: for an unknown attention backend.
        """
        model = self.outline()
        for path, parameter in list(model.named_parameters()):
            owner, _, name = path.rpartition(".")
            unset = torch.full(parameter.shape, torch.nan, dtype=torch.float32, device="cpu")
            model.get_submodule(owner).register_parameter(name, nn.Parameter(unset))
        model.use_backend(backend)
        return model

    def backends(
        self,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        training: bool = True,
        plain: bool = True,
        documents: bool = False,
    ) -> dict[str, str | None]:
        """Return, for every attention backend, why it cannot run this model on a kind of device, or None if it can.

        Args:
            device: "cpu" or "cuda".
            dtype: Of queries, keys and values.
            training: Whether the model is to be trained there, or only evaluated.
            plain: Whether positions are the plain range.
            documents: Whether sequences hold several documents, hidden from each other.
        """
        with torch.device("meta"):
            bias = self.position.build(self.shape()).bias()
        return objections(
            Case(
                mask=self.attention.mask,
                bias=bias,
                device=device,
                dtype=dtype,
                head_width=self.shape().head_width,
                plain=plain,
                documents=documents,
                dropout=training and self.dropout.attention > 0,
                training=training,
            )
        )

    def recomputes(self) -> str | None:
        """Return why generation reads the whole sequence again for every token, or None if a cache saves it that."""
        if getattr(self.attention, "caches", False):
            return None
        return f"attention {getattr(self.attention, 'kind', type(self.attention).__name__)} has no cache"


class Block(nn.Module):
    """One layer: attention and feed-forward, joined to the residual stream as the architecture says."""

    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__()
        shape = architecture.shape(layer)
        dropout = architecture.dropout
        self.wiring, self.dropout = architecture.residual, dropout.residual
        self.output_dropout = dropout.residual if dropout.feed_forward_output is None else dropout.feed_forward_output
        self.attention = architecture.attention.build(shape)
        self.feed_forward = architecture.feed_forward.build(shape)
        if dropout.feed_forward:
            cast(FeedForwardModule, self.feed_forward).dropout = dropout.feed_forward
        for name in self.wiring.norms:
            self.add_module(name, architecture.norm.build(shape))

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through this layer."""
        norms = {name: cast(nn.Module, self._modules[name]) for name in self.wiring.norms}
        return self.wiring.connect(
            x,
            norms,
            lambda y: self._drop(self.attention(y, current), self.dropout),
            lambda y: self._drop(self.feed_forward(y), self.output_dropout),
        )

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        return functional.dropout(x, rate) if self.training and rate else x


class Transformer(nn.Module):
    """A decoder-only Transformer (Vaswani et al. 2017, arXiv:1706.03762).

    Dropout is on in training mode and draws from torch's generator, which the caller seeds for every step.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape = architecture.shape()
        self.dropout, self.backend = architecture.dropout, "sdpa"
        self.recomputes, self.reach = architecture.recomputes(), architecture.reach()
        self.embedding: TokenTable = architecture.embedding.build(shape)
        self.position: PositionModule = architecture.position.build(shape)
        self.blocks = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.layers))
        architecture.sharing.share(list(self.blocks))
        self.final_norm = architecture.norm.build(shape) if architecture.residual.final_norm else nn.Identity()
        self.head: TokenHead = architecture.embedding.build_head(shape)

    def forward(self, batch: Batch, progress: Tensor | None = None, cache: Cache | None = None) -> Output:
        """Compute hidden states.

        Args:
            batch: The sequences; targets and weights are not looked at.
            progress: Share of training done, a 0-dim tensor, for components that follow a schedule.
            cache: What `cache()` returned, for tokens that follow those of earlier calls with it. Positions that are
                not given go on where those ended. Hidden states are those of the new tokens.

        Raises:
            ValueError: if a cache is asked to keep gradients, positions or documents of some tokens only, or more
                tokens than the model can represent.
        """
        new = batch.tokens.shape[1]
        if cache is not None and cache.recomputes:
            batch = cache.whole(batch)
        current = self._begin(batch, cache)
        x = self.position.embed(self.embedding(batch.tokens), current.positions)
        if self.training and self.dropout.embedding:
            x = functional.dropout(x, self.dropout.embedding)
        for layer, block in enumerate(self.blocks):
            x = block(x, current if cache is None else replace(current, cache=cache.layer(layer)))
        hidden = self.final_norm(x)
        return Output(hidden if cache is None else hidden[:, -new:])

    def _begin(self, batch: Batch, cache: Cache | None) -> Pass:
        positions = batch.positions
        if cache is None or cache.recomputes:
            places = Places(positions, positions, batch.documents, batch.documents)
        else:
            start, time = cache.length, batch.tokens.shape[1]
            if positions is None and self.reach is not None and start + time > self.reach:
                raise ValueError(f"cache: expected at most {self.reach} tokens in all, got {start} and {time} more")
            places = cache.extend(time, positions, batch.documents)
            if positions is None and start:
                positions = torch.arange(start, start + time, device=batch.tokens.device)
        dropout = self.dropout.attention if self.training else 0.0
        return Pass(self.position, positions, dropout, self.backend, places)

    def cache(self) -> Cache:
        """Return an empty cache for `forward`; its `recomputes` says why it saves this model nothing, if so."""
        return Cache(len(self.blocks), self.recomputes)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states, (..., width), to logits, (..., vocabulary)."""
        return self.head.logits(hidden, self.embedding.weight)

    def nats(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time), unweighted."""
        return self.head.nats(output.hidden, batch.targets, self.embedding.weight)

    def use_backend(self, name: str) -> None:
        """Compute attention by another backend; what is computed stays the same.

        Raises:
            ValueError: for an unknown backend.
        """
        backend_named(name)
        self.backend = name
