"""A model that reads and writes bytes: tokens only say where one chunk of bytes ends (STLM 5.2, arXiv:2405.14159).

The bytes of each token pass through a small bidirectional transformer and are pooled to one vector of the model's
width. From the hidden state that follows, a small causal transformer spells the bytes of the next token.

Promises that a token of any length and any bytes is read and scored as it is, nothing cut, nothing decoded to
characters; that padding is never read, pooled or scored, and nothing elsewhere in a batch changes a token's nats; and
that these are minus the logarithm of a probability that sums to 1 over all strings of bytes, so that bits per byte
compare with those of a model over tokens. Refuses logits, and to run before `spell` has said what the tokens stand for.

A chunk is its bytes and END. Of end_of_text, which has no bytes, END is all there is: every string of bytes is a
chunk, and no probability is lost on symbols in an order that no chunk has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from architectures.attention import MultiHeadModule, Pass
from architectures.component import Component, Shape
from architectures.feedforward import Gelu
from architectures.heads import Head, Spelling
from architectures.layers import Linear, TokenTable
from architectures.masks import Mask, Places
from architectures.norms import RMSNorm
from architectures.positions import PositionModule, Sinusoidal

BYTES = 256
END = 256  # ends a chunk; alone it is end_of_text
SYMBOLS = 257
PAD = -1
AMPLITUDE = 0.2  # of positions within a chunk: neither drowns symbols that start at 0.02 nor vanishes beside others
INNER = 4  # inner width of the feed-forward per byte_width

Chunks = tuple[Tensor, Tensor]


class ByteBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)), within one chunk."""

    def __init__(self, shape: Shape, *, causal: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm().build(shape)
        self.attention = MultiHeadModule(shape, Mask(causal=causal), query_key_norm=False, bias=False)
        self.feed_forward_norm = RMSNorm().build(shape)
        self.feed_forward = Gelu(width=INNER * shape.width).build(shape)

    def forward(self, x: Tensor, current: Pass) -> Tensor:
        """Transform the symbols x of many chunks, (chunks, symbols, byte_width)."""
        x = x + self.attention(self.attention_norm(x), current)
        return cast(Tensor, x + self.feed_forward(self.feed_forward_norm(x)))


class ByteStack(nn.Module):
    """Blocks over the symbols of chunks, each chunk by itself, and a norm; what encoder and decoder are made of."""

    def __init__(self, shape: Shape, *, causal: bool) -> None:
        super().__init__()
        # defined at any length, owns no parameter, and costs nothing per block as turning tiny heads would
        self._positions: PositionModule = Sinusoidal(amplitude=AMPLITUDE).build(shape)
        self.blocks = nn.ModuleList(ByteBlock(shape, causal=causal) for _ in range(shape.layers))
        self.final_norm = RMSNorm().build(shape)

    def transform(self, x: Tensor, held: Tensor | None = None) -> Tensor:
        """Pass x, (chunks, symbols, byte_width), through all blocks.

        Args:
            x: Embedded symbols.
            held: bool (chunks, symbols): which are symbols and no padding. None where nothing need be hidden.
        """
        documents = None if held is None else held.long()
        places = Places(q_documents=documents, k_documents=documents)
        # chunks are a few symbols long: no kernel is made for that, and plain products are faster
        current = Pass(PositionModule(), None, dropout=0.0, backend="reference", places=places)
        x = self._positions.embed(x, None)
        for block in self.blocks:
            x = block(x, current)
        return cast(Tensor, self.final_norm(x))


class ByteEncoder(ByteStack):
    """Turns tokens into vectors by reading their bytes."""

    def __init__(self, spec: Bytes, shape: Shape) -> None:
        super().__init__(spec.inner(shape, spec.encoder_layers), causal=False)
        self.pooling = spec.pooling
        self.symbols = TokenTable(SYMBOLS, spec.byte_width)
        self.score = Linear(spec.byte_width, 1, bias=False) if spec.pooling == "attention" else None
        self.output = Linear(spec.byte_width, shape.width, bias=False)
        self._chunks: dict[torch.device, Chunks] = {}

    def spell(self, spelling: Spelling) -> None:
        """Say what the tokens stand for: their bytes, by id."""
        sizes = np.array([len(piece) for piece in spelling], np.int64)
        symbols = np.full((len(spelling), sizes.max(initial=0) + 1), PAD, np.int16)
        for row, piece in zip(symbols, spelling, strict=True):
            row[: len(piece)] = np.frombuffer(piece, np.uint8)
            row[len(piece)] = END
        self._chunks = {torch.device("cpu"): (torch.from_numpy(symbols), torch.from_numpy(sizes))}

    def chunks(self, device: torch.device) -> Chunks:
        """Return the symbols of every token, int16 (vocabulary, longest + 1), and its bytes, int64 (vocabulary,).

        A row holds the bytes, END, and PAD.

        Raises:
            ValueError: before `spell`.
        """
        if not self._chunks:
            raise ValueError("spelling: expected the bytes of every token, got none; call build(spelling=...)")
        if device not in self._chunks:
            symbols, sizes = self._chunks[torch.device("cpu")]
            self._chunks[device] = symbols.to(device), sizes.to(device)
        return self._chunks[device]

    def forward(self, tokens: Tensor) -> Tensor:
        """Turn tokens, int64 (batch, time), into vectors, (batch, time, width); equal ones are read once."""
        distinct, inverse = tokens.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        return functional.embedding(inverse, self.output(self._pooled(distinct)))

    def _pooled(self, tokens: Tensor) -> Tensor:
        symbols, sizes = self.chunks(tokens.device)
        counts = sizes[tokens].clamp(min=1)  # of end_of_text END is read
        found = []
        for rows, longest in by_length(counts):
            count = counts[rows, None]
            held = torch.arange(longest, device=tokens.device) < count
            x = self.symbols(symbols[tokens[rows], :longest].long().clamp(min=0))
            padded = not bool(held.all())
            found.append((rows, self._pool(self.transform(x, held if padded else None), held, count)))
        return _restored(found)

    def _pool(self, x: Tensor, held: Tensor, count: Tensor) -> Tensor:
        """Pool x, (chunks, symbols, byte_width), over the symbols that are held, the first `count`, (chunks, 1)."""
        if self.pooling == "last":
            return x[torch.arange(len(x), device=x.device), count[:, 0] - 1]
        if self.score is None:
            return (x * held[..., None]).sum(1) / count
        weights = self.score(x).masked_fill(~held[..., None], float("-inf")).softmax(dim=1)
        return cast(Tensor, (weights * x).sum(1))


class ByteHead(ByteStack, Head):
    """Spells the next token, byte by byte, from the hidden state before it.

    It has no logits: there are infinitely many strings of bytes.
    """

    has_logits: ClassVar[bool] = False

    def __init__(self, spec: Bytes, shape: Shape) -> None:
        inner = spec.inner(shape, spec.decoder_layers)
        super().__init__(inner, causal=True)
        self.reconstruction = spec.reconstruction
        self.input = Linear(shape.width, spec.byte_width, bias=False)
        autoregressive = spec.decoder == "autoregressive"
        self.symbols = TokenTable(BYTES, spec.byte_width) if autoregressive else None
        self.output = Linear(spec.byte_width, SYMBOLS, bias=False)

    def nats(self, hidden: Tensor, targets: Tensor, embedding: nn.Module) -> Tensor:
        """Return what all symbols of every target cost, in nats, float32 (batch, time), unweighted."""
        vectors, tokens = hidden.flatten(0, 1), targets.flatten()
        symbols, sizes = cast(ByteEncoder, embedding).chunks(tokens.device)
        found = []
        for rows, longest in by_length(sizes[tokens] + 1):
            wanted = symbols[tokens[rows], :longest].long()
            found.append((rows, self.symbol_nats(vectors.index_select(0, rows), wanted).sum(1)))
        return _restored(found).view(targets.shape)

    def symbol_nats(self, vectors: Tensor, symbols: Tensor) -> Tensor:
        """Return what each symbol of a chunk costs, given those before it in the chunk if the decoder reads them.

        Args:
            vectors: Hidden states, one per chunk, (chunks, width).
            symbols: int64 (chunks, symbols): bytes, END, and PAD, which costs nothing.

        Returns:
            float32 (chunks, symbols).
        """
        x = self.input(vectors)[:, None].expand(-1, symbols.shape[1], -1)
        if self.symbols is not None:
            # what follows END is read by padding only, which the causal mask keeps from the symbols before it
            before = self.symbols(symbols[:, :-1].clamp(0, BYTES - 1))
            x = x + functional.pad(before, (0, 0, 1, 0))
        logits = self.output(self.transform(x)).float()
        nats = functional.cross_entropy(logits.flatten(0, 1), symbols.flatten(), reduction="none", ignore_index=PAD)
        return nats.view(symbols.shape)

    def penalties(self, embedded: Tensor, tokens: Tensor, embedding: nn.Module) -> dict[str, Tensor]:
        """Return `reconstruction` times the mean nats of reading each token back from its own vector."""
        if not self.reconstruction:
            return {}
        return {"reconstruction": self.reconstruction * self.nats(embedded, tokens, embedding).mean()}


def by_length(lengths: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Group rows by length, so that padding to the longest of a group is at most a quarter of it.

    Args:
        lengths: int64 (rows,), at least 1.

    Yields:
        Indices of rows, int64, and the longest of their lengths, which is at most 4/3 of the shortest.
    """
    longest, below, limit = int(lengths.max()), 0, 1
    while below < longest:
        rows = ((lengths > below) & (lengths <= limit)).nonzero()[:, 0]
        if len(rows):
            yield rows, min(limit, longest)
        below, limit = limit, limit + max(1, limit // 3)  # 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, ...


def _restored(found: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Join the (indices, values) of groups in the order of the rows."""
    indices, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return torch.empty_like(values).index_copy(0, indices, values)


class Bytes(Component):
    """Bytes in, bytes out, in chunks bounded by a tokenizer's tokens.

    Blocks are pre-norm: RMSNorm, attention, GELU feed-forward of 4 byte_width; sinusoids tell where symbols stand. The
    decoder adds the hidden state to each of its inputs, as MEGABYTE does (arXiv:2305.07185, section 2.2). (STLM's code
    pads or cuts every chunk to 12 bytes and scores the padding; its paper has two encoder layers, its code four without
    residual feed-forward.)

    Attributes:
        byte_width: Width of the blocks over bytes; even, and a multiple of `heads`.
        heads: Their attention heads.
        encoder_layers: Blocks that read a chunk, both ways.
        decoder_layers: Blocks that spell the next one, causally.
        pooling: How a chunk becomes one vector: the mean over its bytes, its last, or by learned attention.
        decoder: "autoregressive" reads the bytes it has spelt; "parallel" reads only where they stand and predicts each
            independently of the others, given the hidden state. Both are normalised.
        reconstruction: Weight of a further training loss: the mean nats of spelling each token from its own vector.
        bytes_per_token: Mean bytes of a token, for `flops` only; what a model costs and never what it computes.
    """

    kind: Literal["bytes"] = "bytes"
    reads_bytes: ClassVar[bool] = True
    byte_width: int = Field(64, gt=0)
    heads: int = Field(2, gt=0)
    encoder_layers: int = Field(2, gt=0)
    decoder_layers: int = Field(2, gt=0)
    pooling: Literal["mean", "last", "attention"] = "mean"
    decoder: Literal["autoregressive", "parallel"] = "autoregressive"
    reconstruction: float = Field(0.0, ge=0, json_schema_extra={"effect": "training"})
    bytes_per_token: float = Field(4.0, ge=1, json_schema_extra={"effect": "efficiency"})

    @model_validator(mode="after")
    def _divide_width(self) -> Self:
        if self.byte_width % self.heads or self.byte_width % 2 or self.byte_width == 2:
            expected = f"an even multiple of heads {self.heads} above 2, as sine and cosine share it"
            raise ValueError(f"byte_width: expected {expected}, got {self.byte_width}")
        return self

    def build(self, shape: Shape) -> nn.Module:
        """Build the encoder."""
        return ByteEncoder(self, shape)

    def build_head(self, shape: Shape) -> Head:
        """Build the decoder."""
        return ByteHead(self, shape)

    def inner(self, shape: Shape, layers: int) -> Shape:
        """Return the sizes of a stack of blocks over bytes."""
        return Shape(
            width=self.byte_width,
            heads=self.heads,
            key_value_heads=self.heads,
            head_width=self.byte_width // self.heads,
            layers=layers,
            layer=0,
            context=shape.context,
            vocabulary=SYMBOLS,
        )

    def flops(self, shape: Shape) -> float:
        """Return the forward FLOPs of encoder and decoder per token.

        Exact for tokens of `bytes_per_token` bytes, each read on its own, without padding; equal tokens of a batch are
        in fact read once. Of the pass that `reconstruction` adds to training nothing is counted.
        """
        read, spelt, width = self.bytes_per_token, self.bytes_per_token + 1, self.byte_width
        block = 2 * (4 + 2 * INNER) * width**2  # per symbol
        encoder = read * self.encoder_layers * (block + 4 * width * read)
        encoder += read * 2 * width if self.pooling == "attention" else 0
        decoder = spelt * (self.decoder_layers * (block + 4 * width * (spelt + 1) / 2) + 2 * width * SYMBOLS)
        return encoder + decoder + 4 * width * shape.width

    def kept(self, shape: Shape) -> tuple[float, float]:
        """Return what the backward pass keeps per token: activations, and float32 log-probabilities."""
        read, spelt = self.bytes_per_token, self.bytes_per_token + 1
        symbols = read * self.encoder_layers + spelt * self.decoder_layers
        # per block and symbol: in and out of two norms, queries, keys, values, the result twice, the inner width twice
        return symbols * (4 + 5 + 2 * INNER) * self.byte_width, spelt * SYMBOLS
