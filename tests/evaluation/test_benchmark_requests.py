"""Requests in tokens, against the code by which lm-evaluation-harness takes context and continuation apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from architectures.transformer import Transformer
from workbench.data.prepared import Prepared
from workbench.evaluation.asking import Asked
from workbench.evaluation.requests import Request, encode, measured
from workbench.evaluation.scoring import evaluating
from workbench.evaluation.tasks import Drawing

WORDS = st.lists(st.sampled_from(["The", "ship", " sea", "  ", "\n", "żagle", "A:", "sailed.", "", "1,5"]), max_size=8)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_tokens_are_those_of_the_harness(prepared: Prepared, context: str, continuation: str) -> None:
    model = pytest.importorskip("lm_eval.api.model")
    if not context.strip() or not continuation.strip():
        return
    stub: Any = SimpleNamespace(backend="causal", tok_encode=lambda text: prepared.tokenizer.encode(text).tolist())
    given, scored = model.TemplateLM._encode_pair(stub, context, continuation)
    (ours,) = encode([Request(context, continuation)], prepared.tokenizer, 1000)
    assert ours.tokens.tolist() == given + scored
    assert ours.first_scored == len(given)


def test_greedy_is_what_the_model_would_write(prepared: Prepared, model: Transformer) -> None:
    asked = Asked(model, prepared.tokenizer, 16)
    prompt = prepared.tokenizer.encode("The old ship")
    with evaluating(model):
        (written,) = asked.write([prompt], Drawing(tokens=4, temperature=0), "tests")
        whole = np.concatenate([prompt, written])
        other = whole.copy()
        other[-1] = (other[-1] + 1) % prepared.tokenizer.vocabulary
        requests = [
            encode([Request("a", " b")], prepared.tokenizer, 16)[0]._replace(tokens=one, first_scored=len(prompt))
            for one in (whole, other)
        ]
        found = measured(asked, requests, greedy=True)
    assert [one.greedy for one in found] == [True, False]
    assert found[0].tokens == len(written)
