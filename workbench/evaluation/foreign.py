"""Models of Hugging Face `transformers`, asked like ours: nats per target, likeliest tokens, and writing.

Promises float32 costs from the logits that the library gives, a few rows of them at a time. Needs a causal language
model in a local folder (config.json and *.safetensors) and a tokenizer that keeps every text; refuses code that a
folder brings along, as it would run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from architectures.transformer import Batch, Output
from workbench.errors import MissingExtra, StoreError

TOGETHER = 512  # rows of logits that become float32 together
LONGEST = 2048  # tokens at once, where config.json names no limit


class ForeignCache:
    """Keys and values that a model of Hugging Face has seen.

    Attributes:
        recomputes: Never.
        length: Tokens read so far.
        held: As the library keeps them; None before the first call.
    """

    recomputes: ClassVar[None] = None

    def __init__(self) -> None:
        self.length = 0
        self.held: Any = None


class _Head:
    """What asks whether a model has logits finds here that it does."""

    has_logits: ClassVar[bool] = True


class Foreign(nn.Module):
    """A causal language model of `transformers`; its "hidden states" are logits already.

    Attributes:
        context: The longest sequence that its positions reach, in tokens.
        vocabulary: Logits per position.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model, shared and not copied."""
        super().__init__()
        self.inner, self.head = model, _Head()
        config = model.config
        self.context = int(
            getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or LONGEST
        )
        self.vocabulary = int(model.get_output_embeddings().weight.shape[0])

    def forward(
        self, batch: Batch, progress: Tensor | None = None, cache: ForeignCache | None = None, exit: int | None = None
    ) -> Output:
        """Compute logits, (batch, time, vocabulary), as the output's hidden states.

        Args:
            batch: The sequences, padded on the right if at all; positions and documents are not looked at.
            progress: Not looked at.
            cache: What `cache()` returned, for tokens that follow those of earlier calls with it.
            exit: Not available.

        Raises:
            ValueError: for an exit.
        """
        if exit is not None:
            raise ValueError("exit: expected none, as a model of transformers is read at its end, got one")
        held = {} if cache is None else {"past_key_values": cache.held, "use_cache": True}
        found = self.inner(input_ids=batch.tokens, **({"use_cache": False} if cache is None else held))
        if cache is not None:
            cache.held, cache.length = found.past_key_values, cache.length + batch.tokens.shape[1]
        return Output(found.logits)

    def cache(self) -> ForeignCache:
        """Return an empty cache for `forward`."""
        return ForeignCache()

    def logits(self, hidden: Tensor) -> Tensor:
        """Return what `forward` called hidden states: they are logits."""
        return hidden

    def nats(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time)."""
        rows, targets = output.hidden.flatten(0, 1), batch.targets.flatten()
        pieces = [
            functional.cross_entropy(some.float(), these, reduction="none")
            for some, these in zip(torch.split(rows, TOGETHER), torch.split(targets, TOGETHER), strict=True)
        ]
        return torch.cat(pieces).view(batch.targets.shape)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation mode."""
        super().train(mode)
        return self


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a model in the format of Hugging Face."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def load_foreign(folder: Path) -> Foreign:
    """Read a model in float32 on the CPU, in evaluation mode.

    Raises:
        StoreError: if it cannot be loaded.
        MissingExtra: if transformers is not installed.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "eval") from None
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except Exception as error:  # the library raises many kinds, for what the folder holds
        raise StoreError(
            "a model in the format of Hugging Face cannot be loaded",
            where=folder,
            expected="config.json of a causal language model that transformers knows, and its *.safetensors",
            got=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}",
        ) from None
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return Foreign(model.eval())
