"""Bits per byte of every source of a mixture, beside those of all held-out text, which stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from architectures.transformer import Transformer
from workbench.data.corpora import Files, Mixture, Part
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.tokenizer import BytePairs
from workbench.errors import DataError
from workbench.evaluation.evaluate import draw_items, evaluate
from workbench.evaluation.tasks import BitsPerByte, Evaluation, View

CONTEXT = 16  # of the model


def story(number: int) -> str:
    return f"Story {number}: " + " ".join(f"{number * step % 97} old ships sailed home." for step in range(1, 9))


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Prepared]:
    """Prepare forty stories of one source and eight of another, as many held out as asked for."""
    folder: Path = tmp_path_factory.mktemp("mixture")
    parts = []
    for name, numbers in (("tales", range(40)), ("rare", range(40, 48))):
        (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(map(story, numbers)), encoding="utf-8")
        parts.append(Part(name=name, corpus=Files(path=str(folder / f"{name}.txt"))))

    def made(held_out: float) -> Prepared:
        data = Data(corpus=Mixture(sources=tuple(parts)), tokenizer=BytePairs(vocabulary=320), held_out=held_out)
        return prepare(data, folder)

    return made


def ask(model: Transformer, prepared: Prepared, task: BitsPerByte) -> pa.Table:
    return evaluate(model, prepared, Evaluation(tasks=(task,)), score_id="scores", context=CONTEXT)


def of(scores: pa.Table, metric: str) -> dict[str, tuple[float, float]]:
    rows = scores.filter(pc.equal(scores["metric"], metric)).to_pylist()
    return {row["item"]: (row["value"], row["weight"]) for row in rows}


def test_every_source_is_asked_about_and_the_whole_stays_what_it_was(
    mixture: Callable[..., Prepared], model: Transformer
) -> None:
    prepared = mixture(0.5)
    plain = ask(model, prepared, BitsPerByte(documents=6, bytes_per_document=200))
    both = ask(model, prepared, BitsPerByte(documents=6, bytes_per_document=200, sources=("tales", "rare")))
    assert of(both, "bits_per_byte") == of(plain, "bits_per_byte")
    assert len(of(both, "bits_per_byte")) == 6
    sources = {document.name: document.source for document in prepared.held_out}
    every = of(ask(model, prepared, BitsPerByte(documents=99, bytes_per_document=200)), "bits_per_byte")
    for name, count in (("tales", 6), ("rare", sum(source == "rare" for source in sources.values()))):
        found = of(both, f"bits_per_byte@source={name}")
        assert len(found) == min(6, count) > 1
        assert {sources[item] for item in found} == {name}
        for item, told in found.items():
            assert told == pytest.approx(every[item], rel=1e-5)
    views = dict(zip(both["metric"].to_pylist(), both["view"].to_pylist(), strict=True))
    assert views["bits_per_byte@source=rare"] == "source=rare"
    assert views["bits_per_byte"] == f"context={CONTEXT}"


def test_the_task_says_what_it_leaves() -> None:
    task = BitsPerByte(sources=("web", "code"), contexts=(2,))
    assert task.produces == (
        "bits_per_byte",
        "bits_per_byte@2x",
        "bits_per_byte@source=code",
        "bits_per_byte@source=web",
    )
    assert View(source="web").label(16) == "source=web"
    with pytest.raises(ValueError, match="distinct names"):
        BitsPerByte(sources=("web", "web"))


def test_a_source_of_which_nothing_is_held_out_is_refused(mixture: Callable[..., Prepared]) -> None:
    task = Evaluation(tasks=(BitsPerByte(sources=("tales", "rare")),))
    prepared = mixture(0.05)
    assert not any(document.source == "rare" for document in prepared.held_out)
    with pytest.raises(DataError, match="no document of a source is held out") as refused:
        draw_items(prepared, task, CONTEXT)
    assert "sources.rare" in str(refused.value)
