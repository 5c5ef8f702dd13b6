"""The model: `Architecture` has one field per axis, `Transformer` is what it builds.

This is the only file that knows all axes. Promises that an impossible combination cannot be written: it is refused when
the architecture is made, with the field's path, what was expected and what was got. Parameter names are roles
(`blocks.3.attention.query.weight`), the same in every variant: they are the key by which variants are paired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from architectures.attention import Attention, Case, Mask, Pass, backend_named, objections
from architectures.component import Component, MisfitError, Shape
from architectures.embeddings import Embedding, Table, TokenHead
from architectures.feedforward import FeedForward
from architectures.initialisation import Gpt2, Initialisation
from architectures.layers import TokenTable
from architectures.norms import NoNorm, Norm, RMSNorm
from architectures.positions import Position, PositionModule
from architectures.residual import PreNorm, Residual


@dataclass(frozen=True)
class Batch:
    """One batch of sequences.

    Attributes:
        tokens: int64 (batch, time).
        targets: int64 (batch, time): the token that follows each token.
        weights: float32 (batch, time): how much each target counts; applied by the caller, never by the model.
        positions: int64 (time,); None is the plain range 0, 1, 2, ...
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    positions: Tensor | None = None


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
    """

    embedding: float = Field(0.0, ge=0, lt=1)
    attention: float = Field(0.0, ge=0, lt=1)
    residual: float = Field(0.0, ge=0, lt=1)


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
    initialisation: Initialisation = Field(Gpt2(), json_schema_extra={"effect": "initialisation"})
    dropout: Dropout = Field(Dropout(), json_schema_extra={"effect": "training"})

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        for axis in ("attention", "position", "feed_forward", "norm", "residual", "embedding", "initialisation"):
            try:
                getattr(self, axis).check(self.shape())
            except MisfitError as misfit:
                raise ValueError(misfit.within(axis)) from None
        if isinstance(self.norm, NoNorm) and not isinstance(self.residual, PreNorm):
            got = f"{self.residual.kind}, which without norms is the same model under another name"
            raise ValueError(f"residual: expected pre_norm where norm is none, got {got}")
        return self

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

    def backends(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, str | None]:
        """Return, for every attention backend, why it cannot run this model on a kind of device, or None if it can."""
        with torch.device("meta"):
            bias = self.position.build(self.shape()).bias()
        return objections(Case(Mask(causal=True), bias, device, dtype, self.shape().head_width))


class Block(nn.Module):
    """One layer: attention and feed-forward, joined to the residual stream as the architecture says."""

    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__()
        shape = architecture.shape(layer)
        self.wiring, self.dropout = architecture.residual, architecture.dropout.residual
        self.attention = architecture.attention.build(shape)
        self.feed_forward = architecture.feed_forward.build(shape)
        for name in self.wiring.norms:
            self.add_module(name, architecture.norm.build(shape))

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Pass the residual stream x, (batch, time, width), through this layer."""
        norms = {name: cast(nn.Module, self._modules[name]) for name in self.wiring.norms}
        return self.wiring.connect(
            x, norms, lambda y: self._drop(self.attention(y, current)), lambda y: self._drop(self.feed_forward(y))
        )

    def _drop(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout) if self.training and self.dropout else x


class Transformer(nn.Module):
    """A decoder-only Transformer (Vaswani et al. 2017, arXiv:1706.03762).

    Dropout is on in training mode and draws from torch's generator, which the caller seeds for every step.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        shape = architecture.shape()
        self.dropout, self.backend = architecture.dropout, "sdpa"
        self.embedding: TokenTable = architecture.embedding.build(shape)
        self.position: PositionModule = architecture.position.build(shape)
        self.blocks = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.layers))
        self.final_norm = architecture.norm.build(shape) if architecture.residual.final_norm else nn.Identity()
        self.head: TokenHead = architecture.embedding.build_head(shape)

    def forward(self, batch: Batch, progress: Tensor | None = None) -> Output:
        """Compute hidden states.

        Args:
            batch: The sequences; targets and weights are not looked at.
            progress: Share of training done, a 0-dim tensor, for components that follow a schedule.
        """
        current = Pass(self.position, batch.positions, self.dropout.attention if self.training else 0.0, self.backend)
        x = self.position.embed(self.embedding(batch.tokens), batch.positions)
        if self.training and self.dropout.embedding:
            x = functional.dropout(x, self.dropout.embedding)
        for block in self.blocks:
            x = block(x, current)
        return Output(self.final_norm(x))

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
