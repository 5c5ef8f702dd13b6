"""`Architecture`: the specification of a model, one field per axis.

This is the only file that knows all axes. Promises that an impossible combination cannot be written: it is refused when
the architecture is made, with the field's path, what was expected and what was got. Every axis takes a user's own
component too (`architectures.hooks`).
"""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from architectures.attention import Attention
from architectures.backends import objections
from architectures.component import Component, MisfitError, Shape
from architectures.depth import Depth, FullDepth
from architectures.dropout import Dropout
from architectures.embeddings import Embedding, Table
from architectures.feedforward import FeedForward
from architectures.heads import Spelling
from architectures.hooks import Open, fit
from architectures.initialisation import Gpt2, Initialisation
from architectures.masks import Case, Mask, ordered
from architectures.norms import NoNorm, Norm, RMSNorm
from architectures.own import is_own
from architectures.positions import Position
from architectures.residual import Parallel, PreNorm, Residual
from architectures.sharing import NoSharing, Sharing
from architectures.thinking import NoThinking, Thinking
from architectures.transformer import Transformer

AXES = (
    "attention",
    "position",
    "feed_forward",
    "norm",
    "residual",
    "embedding",
    "sharing",
    "depth",
    "thinking",
    "initialisation",
)


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
        depth: Which blocks a token passes through.
        thinking: Positions between the tokens, to compute in.
        initialisation: Where parameters start.
        dropout: What is dropped in training.
    """

    width: int = Field(gt=0)
    layers: int = Field(gt=0)
    context: int = Field(gt=0, json_schema_extra={"effect": "training"})
    vocabulary: int = Field(gt=1)
    position: Annotated[Position, Open("position")]
    attention: Annotated[Attention, Open("attention")]
    feed_forward: Annotated[FeedForward, Open("feed_forward")]
    norm: Annotated[Norm, Open("norm")] = RMSNorm()
    residual: Annotated[Residual, Open("residual")] = PreNorm()
    embedding: Annotated[Embedding, Open("embedding")] = Table()
    sharing: Annotated[Sharing, Open("sharing")] = Field(NoSharing(), json_schema_extra={"neutral": {"kind": "none"}})
    depth: Annotated[Depth, Open("depth")] = Field(FullDepth(), json_schema_extra={"neutral": {"kind": "full"}})
    thinking: Annotated[Thinking, Open("thinking")] = Field(
        NoThinking(), json_schema_extra={"neutral": {"kind": "none"}}
    )
    initialisation: Annotated[Initialisation, Open("initialisation")] = Field(
        Gpt2(), json_schema_extra={"effect": "initialisation"}
    )
    dropout: Dropout = Field(Dropout(), json_schema_extra={"effect": "training"})

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        for axis in AXES:
            try:
                getattr(self, axis).check(self.shape())
                if is_own(getattr(self, axis)):
                    fit(getattr(self, axis), axis, self.shape())
            except MisfitError as misfit:
                raise ValueError(misfit.within(axis)) from None
        if isinstance(self.norm, NoNorm) and not isinstance(self.residual, PreNorm | Parallel):
            got = f"{self.residual.kind}, which without norms is the same model under another name"
            raise ValueError(f"residual: expected pre_norm or parallel where norm is none, got {got}")
        if self.dropout.feed_forward and not getattr(self.feed_forward, "drops_hidden", False):
            expected = f"0, as {type(self.feed_forward).__name__} cannot drop its hidden activations"
            raise ValueError(f"dropout.feed_forward: expected {expected}, got {self.dropout.feed_forward}")
        window, extra = (self.attention.mask or Mask()).window, getattr(self.thinking, "longest", 0)
        if window is not None and extra and window < extra + 2:
            expected = f"at least {extra + 2}, to see a token before its own past {extra} extra positions"
            raise ValueError(f"attention.window: expected {expected}, got {window}")
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

    def build(self, *, backend: str = "sdpa", spelling: Spelling | None = None) -> Transformer:
        """Build the model in float32 on the CPU, every parameter NaN until `initialise` sets it.

        Torch's global generator is neither read nor advanced.

        Args:
            backend: By which attention is computed.
            spelling: The bytes of every token of the vocabulary; only a model that reads bytes asks for them.

        Raises:
            ValueError: for an unknown attention backend, or a model that reads bytes without a spelling.
        """
        model = self.outline()
        for path, parameter in list(model.named_parameters()):
            owner, _, name = path.rpartition(".")
            unset = torch.full(parameter.shape, torch.nan, dtype=torch.float32, device="cpu")
            model.get_submodule(owner).register_parameter(name, nn.Parameter(unset))
        if self.embedding.reads_bytes:
            if spelling is None or len(spelling) != self.vocabulary:
                got = "none" if spelling is None else f"{len(spelling)}"
                raise ValueError(f"spelling: expected the bytes of {self.vocabulary} tokens, got {got}")
            model.embedding.spell(spelling)  # type: ignore[operator]
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
        mask = self.attention.mask or Mask()
        return objections(
            Case(
                mask=mask,
                bias=bias,
                device=device,
                dtype=dtype,
                head_width=self.shape().head_width,
                plain=plain and (not self.depth.parts or ordered(mask, bias)),
                documents=documents,
                dropout=training and self.dropout.attention > 0,
                training=training,
            )
        )

    def recomputes(self) -> str | None:
        """Return why generation reads the whole sequence again for every token, or None if a cache saves it that."""
        if not getattr(self.attention, "caches", False):
            return f"attention {getattr(self.attention, 'kind', type(self.attention).__name__)} has no cache"
        if not getattr(self.depth, "caches", False):
            return f"depth {self.depth.kind} has no cache"
        return None if isinstance(self.thinking, NoThinking) else f"thinking {self.thinking.kind} has no cache"

    def unpacked(self) -> str | None:
        """Return why a sequence cannot hold several documents, each as if it stood alone, or None if it can."""
        if self.attention.mask is None:
            return f"attention {self.attention.kind} mixes otherwise than by a mask, which hides documents"
        if self.depth.parts:
            return f"depth {self.depth.kind} compares the tokens of a whole sequence"
        if self.thinking.extended(self.context) != self.context:
            return f"thinking {self.thinking.kind} places extra positions by the sequence, not by the document"
        return None

    def unstacked(self) -> str | None:
        """Return why models of several seeds cannot be trained as one stack, or None if they can.

        This is the one list of what cannot. A component of the user's own can if its class says `stacks = True`, which
        `architectures.testing.check_stacking` holds it to.
        """
        for axis in AXES:
            choice = getattr(self, axis)
            name = f"{axis} {getattr(choice, 'kind', type(choice).__name__)}"
            if is_own(choice) and not getattr(choice, "stacks", False):
                return f"{name} does not say that it can (stacks = True)"
            if getattr(choice, "draws", False):
                return f"{name} draws random numbers, and every seed has its own"
        if self.embedding.reads_bytes:
            return f"embedding {self.embedding.kind} reads tokens in groups that depend on the text, and on the seed"
        return None

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        drawing = any(getattr(getattr(self, axis), "draws", False) for axis in AXES)
        return drawing or self.dropout.draws
