"""Weight sharing: several layers use one matrix, each with norms, biases and low-rank adapters of its own.

A shared matrix is owned once, by the first layer that uses it and under that layer's name; the other layers ask the
owner. Nothing is aliased: `named_parameters`, a checkpoint and the initial noise know a shared matrix once, moving or
casting the model moves it once, and its gradient is the sum over the layers. Vectors (norm gains, biases) stay private.
A scheme that starts layers at different scales starts a shared matrix at that of its first layer.

With k private layers at either end of D, the layers 1 + k ... D - k share, counted from 1: D - 2k of them. (STLM's
preregistration words it so; its code shares one layer fewer, since its range starts at index 1 + k, counted from 0.)

Refuses to share where fewer than two layers would, a part that has no matrix, a matrix that no linear layer owns, and
layers whose matrices differ in shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, cast

from pydantic import Field
from torch import Tensor, nn

from architectures.component import Component, MisfitError, Shape
from architectures.layers import Linear

Part = Literal["feed_forward", "attention_output", "feed_forward+attention_output", "attention", "block"]
PREFIXES: dict[Part, tuple[str, ...]] = {
    "feed_forward": ("feed_forward.",),
    "attention_output": ("attention.output.",),
    "feed_forward+attention_output": ("feed_forward.", "attention.output."),
    "attention": ("attention.",),
    "block": ("attention.", "feed_forward."),
}


class Adapter(nn.Module):
    """A low-rank addition to a linear map: alpha / rank * B A x (Hu et al. 2021, arXiv:2106.09685, section 4.1)."""

    def __init__(self, width: int, to: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.lora_a = Linear(width, rank, bias=False)
        self.lora_b = Linear(rank, to, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x, (..., width), to (..., to)."""
        return cast(Tensor, self.lora_b(self.lora_a(x)) * self.scale)


class OwningLinear(nn.Linear):
    """A linear layer that takes over the parameters of another and adds an adapter."""

    def __init__(self, own: nn.Linear, adapter: Adapter | None) -> None:
        nn.Module.__init__(self)  # that of Linear would make parameters, which are here already
        self.in_features, self.out_features = own.in_features, own.out_features
        self._take_weight(own)
        self.register_parameter("bias", own.bias)
        self.adapter = adapter

    def _take_weight(self, own: nn.Linear) -> None:
        self.register_parameter("weight", cast(nn.Parameter, own.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map x, (..., in_features), to (..., out_features)."""
        mapped = super().forward(x)
        return mapped if self.adapter is None else mapped + self.adapter(x)


class BorrowingLinear(OwningLinear):
    """A linear layer with the weight of another layer, and bias and adapter of its own."""

    def __init__(self, own: nn.Linear, adapter: Adapter | None, owner: nn.Linear) -> None:
        super().__init__(own, adapter)
        self._owner = (owner,)  # in a tuple torch does not see it, and does not register it a second time

    def _take_weight(self, own: nn.Linear) -> None:
        """Take none."""

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """Return the owner's weight, (out_features, in_features)."""
        return self._owner[0].weight


class NoSharing(Component):
    """Every layer has weights of its own."""

    kind: Literal["none"] = "none"

    def share(self, blocks: Sequence[nn.Module]) -> None:
        """Leave the layers as they are."""


class Shared(Component):
    """Layers with the same matrices: feed-forward (MobiLlama, arXiv:2402.16840) or all (ALBERT, arXiv:1909.11942).

    Attributes:
        part: What is shared: the feed-forward, the projection of attention back to the residual stream, both of these,
            attention, or attention and feed-forward.
        private_ends: Layers at either end of the model that keep matrices of their own: the k of "k-interior".
    """

    kind: Literal["shared"] = "shared"
    part: Part = "feed_forward"
    private_ends: int = Field(0, ge=0)

    def check(self, shape: Shape) -> None:
        """Refuse a model in which fewer than two layers would share."""
        _check_ends(self.private_ends, shape)

    def share(self, blocks: Sequence[nn.Module]) -> None:
        """Make the layers share; each is built with all its own parameters before."""
        _share(blocks, self.part, self.private_ends, None)


class Adapted(Component):
    """Layers with the same matrices, to each of which every one of these layers adds a low-rank map of its own.

    y = W x + alpha / rank * B A x (arXiv:2106.09685). B starts at zero, so that the model starts as if it had no
    adapters; A starts as the initialisation says. An adapter has rank * (inputs + outputs) parameters.

    Attributes:
        part: As in `Shared`.
        private_ends: As in `Shared`.
        rank: Inner width of the adapters.
        alpha: Divided by the rank, the factor of the adapters. STLM's code has none: alpha = rank.
    """

    kind: Literal["adapted"] = "adapted"
    part: Part = "feed_forward"
    private_ends: int = Field(0, ge=0)
    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)

    def check(self, shape: Shape) -> None:
        """Refuse a model in which fewer than two layers would share."""
        _check_ends(self.private_ends, shape)

    def share(self, blocks: Sequence[nn.Module]) -> None:
        """Make the layers share and give each its adapters; each is built with all its own parameters before."""
        _share(blocks, self.part, self.private_ends, (self.rank, self.alpha))


Sharing = Annotated[NoSharing | Shared | Adapted, Field(discriminator="kind")]


def sharing_layers(layers: int, private_ends: int) -> range:
    """Return the indices, from 0, of the layers that share.

    >>> list(sharing_layers(8, 2))
    [2, 3, 4, 5]
    """
    return range(private_ends, layers - private_ends)


def _check_ends(private_ends: int, shape: Shape) -> None:
    if shape.layers < 2:
        raise MisfitError("at least two layers to share between", f"layers {shape.layers}")
    if len(sharing_layers(shape.layers, private_ends)) < 2:
        most = (shape.layers - 2) // 2
        raise MisfitError(f"at most {most}, so that two of {shape.layers} layers share", private_ends, "private_ends")


def _share(blocks: Sequence[nn.Module], part: Part, private_ends: int, adapter: tuple[int, float] | None) -> None:
    first, *others = [blocks[layer] for layer in sharing_layers(len(blocks), private_ends)]
    for path in list(_matrices(first, part)):
        own = cast(nn.Linear, first.get_submodule(path))
        owner = own if adapter is None else OwningLinear(own, Adapter(own.in_features, own.out_features, *adapter))
        _replace(first, path, owner)
        for block in others:
            replaced = _like(owner, block, path)
            added = None if adapter is None else Adapter(own.in_features, own.out_features, *adapter)
            _replace(block, path, BorrowingLinear(replaced, added, owner))


def _matrices(block: nn.Module, part: Part) -> Iterator[str]:
    """Yield the paths of the linear layers of a part.

    Raises:
        ValueError: if it has none, or a matrix outside a linear layer.
    """
    found = False
    for name, parameter in block.named_parameters():
        if parameter.ndim < 2 or not name.startswith(PREFIXES[part]):
            continue
        path, _, role = name.rpartition(".")
        if role != "weight" or not isinstance(block.get_submodule(path), nn.Linear):
            raise ValueError(
                f"sharing.part: expected every matrix to be the weight of a torch.nn.Linear, got {name}, "
                f"{tuple(parameter.shape)}, of {type(block.get_submodule(path)).__name__}"
            )
        found = True
        yield path
    if not found:
        raise ValueError(f"sharing.part: expected a part with a matrix, got {part}, which has none in this model")


def _like(owner: nn.Linear, block: nn.Module, path: str) -> nn.Linear:
    found = cast(nn.Linear, block.get_submodule(path))
    if found.weight.shape != owner.weight.shape:
        raise ValueError(
            f"sharing.part: expected {path} of shape {tuple(owner.weight.shape)} in every layer that shares it, "
            f"got {tuple(found.weight.shape)}"
        )
    return found


def _replace(block: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    block.get_submodule(parent).register_module(name, module)
