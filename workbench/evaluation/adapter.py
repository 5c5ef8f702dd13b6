"""Our models, as lm-evaluation-harness asks any model: log-probabilities of continuations, of texts, and writing.

Imported only where the harness is installed. Promises the tokens that the harness's own model of Hugging Face (`HFLM`,
0.4.13) would score: no token before a context unless the model's texts begin with one, an end_of_text in place of an
empty one, contexts cut from the left, texts in windows that do not overlap but for the last. What is written keeps the
space before it, where the library takes one away from a tokenizer in the style of SentencePiece. Refuses drawing among
the likeliest share of probability (`top_p`), several beams, and chat templates, which it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from lm_eval import utils
from lm_eval.api.model import LM

from workbench.errors import WorkbenchError
from workbench.evaluation.asking import Asked
from workbench.evaluation.requests import Encoded, Request, encode, measured, shortened
from workbench.evaluation.tasks import Drawing

WRITTEN = 256  # tokens, where a task does not say how many: the harness's own default
AT_ONCE = 32  # tokens between two looks for a stop


class Adapter(LM):  # type: ignore[misc]
    """A model of ours behind the harness's interface.

    Attributes:
        truncated: (task, document) of every request whose beginning was cut.
    """

    def __init__(self, asked: Asked, *, greedy: bool = True) -> None:
        """Wrap a model.

        Args:
            asked: The model in evaluation mode.
            greedy: Whether to find out if a continuation is what the model would write; it costs a second reading of
                the logits. Where not, the harness is told that it is not.
        """
        super().__init__()
        self.asked, self.greedy = asked, greedy
        self.truncated: set[tuple[str, int]] = set()

    @property
    def tokenizer_name(self) -> str:
        """What the harness would name a cache of requests by."""
        return f"workbench-{self.asked.tokenizer.vocabulary}"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-probability of the continuation, whether greedy writing gives it) of each request."""
        asked = self.asked
        encoded = encode([Request(*request.args[:2]) for request in requests], asked.tokenizer, asked.context)
        fitting = [shortened(one, asked.context) for one in encoded]
        for request, one in zip(requests, fitting, strict=True):
            self._told(request, one.truncated)
        answers = measured(asked, fitting, greedy=self.greedy) if fitting else []
        found = [(-one.nats, bool(one.greedy)) for one in answers]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text after an end_of_text, every token once."""
        asked = self.asked
        texts = [request.args[0] for request in requests]
        windows = [list(self._windows(tokens)) for tokens in asked.tokenizer.encode_batch(texts)]
        flat = [window for held in windows for window in held]
        answers = iter(measured(asked, flat) if flat else ())
        found = [-sum(next(answers).nats for _ in held) for held in windows]
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes after each context, up to the first of its stops."""
        found = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(sorted(request.args[1].items(), key=str)), []).append(number)
        for numbers in alike.values():
            drawing, stops = _drawing(requests[numbers[0]].args[1])
            most = max(self.asked.context - drawing.tokens, self.asked.context // 2)
            texts = [requests[number].args[0] for number in numbers]
            prompts, tokenizer = [], self.asked.tokenizer
            for number, tokens in zip(numbers, tokenizer.encode_batch(texts), strict=True):
                begins = tokenizer.begin_of_text is not None or not len(tokens)
                prompt = tokenizer.begun(tokens) if begins else tokens
                self._told(requests[number], len(prompt) > most)
                prompts.append(prompt[-most:])
            written = self._write(prompts, drawing, stops, list(map(bool, texts)))
            for number, text in zip(numbers, written, strict=True):
                found[number] = text
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, answer)
        return found

    def _told(self, request: Any, truncated: bool) -> None:
        if truncated:
            self.truncated.add((str(request.task_name), int(request.doc_id)))

    def _windows(self, tokens: np.ndarray) -> Iterator[Encoded]:
        rolling = utils.get_rolling_token_windows(
            token_list=tokens.tolist(),
            prefix_token=self.asked.tokenizer.first,
            max_seq_len=self.asked.context,
            context_len=1,
        )
        for given, scored in map(utils.make_disjoint_window, rolling):
            yield Encoded(np.array([*given, *scored], np.int64), len(given))

    def _write(
        self, prompts: list[np.ndarray], drawing: Drawing, stops: Sequence[str], continued: Sequence[bool]
    ) -> list[str]:
        """Write a few tokens at a time, so that a text with a stop in it costs no more; drawn texts all at once."""

        def text(number: int) -> str:
            return self.asked.tokenizer.decode(written[number], continued=continued[number])

        written = [np.empty(0, np.int64)] * len(prompts)
        going = list(range(len(prompts)))
        left = drawing.tokens
        while going and left:
            some = left if drawing.temperature else min(AT_ONCE, left)
            before = [np.concatenate([prompts[number], written[number]]) for number in going]
            more = self.asked.write(before, drawing.model_copy(update={"tokens": some}), "evaluation/lm_eval")
            still = []
            for number, tokens in zip(going, more, strict=True):
                written[number] = np.concatenate([written[number], tokens])
                if len(tokens) == some and not any(stop in text(number) for stop in stops):
                    still.append(number)
            going, left = still, left - some
        return [_until(text(number), stops) for number in range(len(prompts))]


def _until(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


def _drawing(asked: dict[str, Any]) -> tuple[Drawing, list[str]]:
    """Return how the harness wants a text written, and what ends it."""
    stops = asked.get("until") or []
    if asked.get("num_beams", 1) != 1 or asked.get("top_p", 1.0) not in (1.0, None):
        raise WorkbenchError(
            "a task wants texts written in a way that the workbench does not know",
            where="generation_kwargs",
            expected="greedy writing, or drawing by temperature and top_k",
            got=", ".join(f"{name}={asked[name]}" for name in ("num_beams", "top_p") if name in asked),
        )
    tokens = asked.get("max_gen_toks", asked.get("max_new_tokens", WRITTEN))
    drawn = asked.get("do_sample", bool(asked.get("temperature")))
    temperature = float(asked.get("temperature", 1.0)) if drawn else 0.0
    drawing = Drawing(tokens=int(tokens), temperature=temperature, top=asked.get("top_k") or None)
    return drawing, [stops] if isinstance(stops, str) else [str(stop) for stop in stops if stop]
