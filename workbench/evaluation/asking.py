"""A trained model that is asked: what a task may want to know of it, in every view.

Promises that the model is only read: it stays in evaluation mode, and no question leaves a trace in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from architectures.exits import AtExit, Confident
from workbench.data.tokenizer import Tokenizer
from workbench.evaluation.generation import extend
from workbench.evaluation.likeliest import Likeliest
from workbench.evaluation.prefixes import measure_after
from workbench.evaluation.scoring import Answers, LanguageModel, Progress, measure_sequences
from workbench.evaluation.tasks import Drawing, View
from workbench.seeds import generator

ORDINARY = View()


@dataclass(frozen=True)
class Asked:
    """A model in evaluation mode, and how it is asked.

    Attributes:
        model: Any causal language model that returns nats. Views at earlier exits, and writing, need a `Transformer`.
        tokenizer: The one it was trained with.
        context: The training context, in tokens.
        batch: Tokens in one forward pass.
        device: Where it lies.
        progress: Told (sequences done, sequences in all) while it answers.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    context: int
    batch: int = 2048
    device: torch.device | str = "cpu"
    progress: Progress | None = None

    def measure(self, sequences: Sequence[np.ndarray], view: View = ORDINARY, *, greedy: bool = False) -> Answers:
        """Return what every token costs given those before it, in nats, as the view reads the model.

        In a view with a confidence, also the blocks that every token passed through ("layers").

        Args:
            sequences: int64[tokens + 1] each; the first token is given and not scored.
            view: How the model is read; its multiple of the context is the caller's to respect.
            greedy: Whether to say, too, where a token is the likeliest ("greedy": 1, and 0 elsewhere).

        Raises:
            WorkbenchError: for `greedy` of a model without logits.
        """
        reader, measures = self._read(view)
        if greedy:
            reader, measures = Likeliest(reader), ("nats", "greedy")
        return measure_sequences(
            reader, sequences, batch=self.batch, device=self.device, progress=self.progress, measures=measures
        )

    def follow(
        self, sequences: Sequence[np.ndarray], given: Sequence[int], view: View = ORDINARY, *, greedy: bool = False
    ) -> Answers:
        """Return what every token from number `given` on costs, given all before it; shared beginnings are run once.

        Args:
            sequences: int64[two or more tokens] each.
            given: How many tokens of each are not scored, at least 1.
            view: How the model is read.
            greedy: As in `measure`.

        Raises:
            WorkbenchError: for `greedy` of a model without logits.
        """
        if view.exit is None and view.confidence is None:
            return measure_after(
                self.model,
                sequences,
                given,
                batch=self.batch,
                device=self.device,
                progress=self.progress,
                greedy=greedy,
            )
        answers = self.measure(sequences, view, greedy=greedy)
        return {
            name: [value[first - 1 :] for value, first in zip(values, given, strict=True)]
            for name, values in answers.items()
        }

    def write(self, prompts: Sequence[np.ndarray], drawing: Drawing, stream: str) -> list[np.ndarray]:
        """Return the tokens that the model writes after each prompt, int64[at most drawing.tokens], no end_of_text.

        Args:
            prompts: int64[one or more tokens] each, the end_of_text from which they begin included.
            drawing: How many tokens, and how each is chosen.
            stream: Name of the random stream that every prompt draws from, followed by its number; greedy draws none.

        Raises:
            WorkbenchError: if the model has no logits.
        """
        model: Any = self.model
        streams = [generator(0, f"{stream}/{number}") for number in range(len(prompts))]
        stop = self.tokenizer.end_of_text
        return extend(
            model, prompts, context=self.context, drawing=drawing, streams=streams, stop=stop, device=self.device
        )

    def _read(self, view: View) -> tuple[LanguageModel, tuple[str, ...]]:
        """Return the model as a view reads it, and what can be measured there."""
        model: Any = self.model
        if view.exit is not None:
            return AtExit(model, view.exit), ("nats",)
        if view.confidence is not None:
            return Confident(model, view.confidence), ("nats", "layers")
        return self.model, ("nats",)
