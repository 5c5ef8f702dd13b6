"""Would the model have written this token? A model that says so beside what the token costs.

Promises the answer of greedy writing: the target has the largest logit, the first of equal ones, in float32. Refuses a
model without logits, such as one over bytes.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from architectures.exits import TOGETHER
from architectures.transformer import Batch
from workbench.errors import WorkbenchError


class Likeliest:
    """A model, however it is read, that is also asked whether each target is the likeliest."""

    def __init__(self, model: Any) -> None:
        """Wrap a `Transformer`, `AtExit` or `Confident`, shared and not copied.

        Raises:
            WorkbenchError: if the model has no logits.
        """
        self._model, self._whole = model, getattr(model, "model", model)
        head = getattr(self._whole, "head", None)
        if head is not None and not head.has_logits:
            raise WorkbenchError(
                "the model cannot say which token is the likeliest",
                expected="one with a probability for every token, such as embedding table",
                got=f"{type(head).__name__}, which has the cost of given text only",
            )

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return bool(self._model.training)

    def train(self, mode: bool = True) -> Self:
        """Switch the model between training and evaluation mode."""
        self._model.train(mode)
        return self

    def __call__(self, batch: Batch) -> Any:
        """Run the model."""
        return self._model(batch)

    def nats(self, output: Any, batch: Batch) -> Tensor:
        """Return the cross-entropy of every target in nats, float32 (batch, time)."""
        nats: Tensor = self._model.nats(output, batch)
        return nats

    def greedy(self, output: Any, batch: Batch) -> Tensor:
        """Return 1 where the target is the likeliest token and 0 elsewhere, float32 (batch, time).

        Only where targets have a weight are logits made, `TOGETHER` rows at a time.
        """
        asked = batch.weights > 0
        rows, targets = output.hidden[asked], batch.targets[asked]
        best = [self._whole.logits(some).float().argmax(-1) for some in torch.split(rows, TOGETHER)]
        found = torch.zeros(batch.targets.shape, device=batch.targets.device)
        found[asked] = (torch.cat(best) == targets).float()
        return found
