"""Arms that differ in the order of their text: one cache, models of their own, feeds that read as declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures.presets import tiny
from workbench.configuration import Configuration
from workbench.data import streams
from workbench.data.corpora import Files, Mixture, Part
from workbench.data.difficulty import Compression, Rarity
from workbench.data.ordering import Curriculum, Order, Shuffled, Weighted
from workbench.data.prepared import Data, Prepared, prepare
from workbench.data.tokenizer import BytePairs
from workbench.errors import PlanError
from workbench.estimating import sources_read
from workbench.evaluation.tasks import BitsPerByte, Evaluation
from workbench.planning import plan
from workbench.records import Numerics, Seeds
from workbench.reporting.naming import spoken
from workbench.store import Store
from workbench.sweep import Arm, Metric, Sweep
from workbench.terminal import show_sources_read
from workbench.training.recipe import Pretraining, Rollback

SEVEN_TO_THREE = Weighted(weights={"old": 7, "new": 3})
EARLY = Weighted(weights={"old": 1, "new": ((0, 1), (0.5, 0))})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    folder: Path = tmp_path_factory.mktemp("corpus")
    parts = []
    for name, words, count in (("old", "ye olde shippe sayled", 60), ("new", "a new boat sped away", 20)):
        texts = [" ".join([words] * (1 + number % 7)) + f" {number}." for number in range(count)]
        (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
        parts.append(Part(name=name, corpus=Files(path=str(folder / f"{name}.txt"))))
    return Mixture(sources=tuple(parts))


@pytest.fixture(scope="module")
def make(corpus: Mixture, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Order], Prepared]:
    cache = tmp_path_factory.mktemp("cache")

    def made(order: Order) -> Prepared:
        return prepare(Data(corpus=corpus, tokenizer=BytePairs(vocabulary=300), held_out=0.1, order=order), cache)

    return made


def configured(corpus: Mixture, order: Order, tokens: int = 4096, **stage: object) -> Configuration:
    pretraining = Pretraining.model_validate({"tokens": tokens, "batch": 2, **stage})
    data = Data(corpus=corpus, tokenizer=BytePairs(vocabulary=300), order=order)
    return Configuration(architecture=tiny().vary(vocabulary=300), stages=(pretraining,), data=data)


def test_orders_share_the_prepared_files_and_no_model(corpus: Mixture, make: Callable[[Order], Prepared]) -> None:
    orders = (Shuffled(), SEVEN_TO_THREE, EARLY, Curriculum(), Curriculum(control=True))
    assert len({make(order).key for order in orders}) == 1
    assert len({configured(corpus, order).model_id("bytes", Seeds.all(0)) for order in orders}) == len(orders)
    assert "order" not in Data(corpus=corpus).identity("bytes")


def test_a_stage_reads_its_sources_at_their_shares(make: Callable[[Order], Prepared]) -> None:
    prepared, stage = make(SEVEN_TO_THREE), Pretraining(tokens=2000, batch=2)
    places = stage.feed(prepared, Seeds.all(3), 20).sequences(0, 100).places
    assert places is not None
    assert prepared.train.sources is not None
    documents = np.searchsorted(prepared.train.offsets, places.numpy().ravel(), side="right") - 1
    new = (prepared.train.sources[documents] == 1).sum()
    assert new == pytest.approx(600, abs=float(np.diff(prepared.train.offsets).max()))


@pytest.mark.parametrize("order", [EARLY, Curriculum(by=Rarity()), Curriculum(pacing=0.2, direction="hard_first")])
@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_any_step_of_a_declared_order_is_recomputed(
    order: Order, packing: str, make: Callable[[Order], Prepared]
) -> None:
    stage = Pretraining.model_validate({"tokens": 4000, "batch": 4, "packing": packing})
    feeds = [stage.feed(make(order), Seeds.all(1), 16) for _ in range(2)]
    whole = feeds[0].sequences(0, 250).batch
    late = feeds[1].sequences(130, 7).batch
    assert torch.equal(whole.tokens[130:137], late.tokens)
    assert torch.equal(whole.targets[130:137], late.targets)
    assert packing == "stream" or torch.equal(whole.positions[130:137], late.positions)  # type: ignore[index]


def test_difficulty_is_measured_once_per_cache(
    make: Callable[[Order], Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = make(Curriculum(by=Compression()))
    first = streams.measured(Compression(), prepared)
    monkeypatch.setattr(streams, "difficulty", None)
    assert np.array_equal(streams.measured(Compression(), prepared), first)
    assert len(first) == prepared.facts.training_documents


def refusal(configuration: Configuration) -> str | None:
    try:
        configuration.refuse_unanswerable("arm 'ordered'")
    except PlanError as error:
        return str(error).splitlines()[0]
    return None


@pytest.mark.parametrize(
    ("order", "stage", "told"),
    [
        (SEVEN_TO_THREE, {"packing": "whole"}, "pack whole documents in an order of their own"),
        (Curriculum(), {"packing": "whole"}, "pack whole documents in an order of their own"),
        (Shuffled(), {"packing": "whole"}, None),
        (Curriculum(), {"packing": "documents"}, None),
        (Curriculum(), {"rollback": Rollback()}, "go back from a spike"),
        (SEVEN_TO_THREE, {"rollback": Rollback()}, None),
        (Weighted(weights={"old": 1, "other": 1}), {}, "weighs other sources than its corpus has"),
    ],
)
def test_what_an_order_cannot_do_and_only_that_is_refused_in_the_plan(
    corpus: Mixture, order: Order, stage: dict[str, object], told: str | None
) -> None:
    said = refusal(configured(corpus, order, **stage))
    assert (said is None) == (told is None)
    assert told is None or told in str(said)


def test_bits_of_a_source_that_is_not_there_are_refused_in_the_plan(corpus: Mixture) -> None:
    asked = Evaluation(tasks=(BitsPerByte(sources=("newer",)),))
    with pytest.raises(PlanError, match="sources among old, new"):
        configured(corpus, Shuffled()).vary(evaluation=asked).refuse_unanswerable("arm")
    with pytest.raises(PlanError, match="held-out documents of a Mixture"):
        Configuration(architecture=tiny(), evaluation=asked).refuse_unanswerable("arm")


def test_pairing_says_what_two_orders_share(corpus: Mixture) -> None:
    def pairing(one: Configuration, other: Configuration) -> str:
        return str(one.paired_with(other, same_seeds=True)["pairing"])

    shuffled, mixed, early = (configured(corpus, order) for order in (Shuffled(), SEVEN_TO_THREE, EARLY))
    assert pairing(mixed, mixed.vary(architecture__feed_forward__width=64)) == "tokens"
    assert pairing(mixed, shuffled) == pairing(early, mixed) == "sources"
    assert pairing(early, early.vary(data__order__control=True)) == "text"
    assert pairing(configured(corpus, Curriculum()), shuffled) == "corpus"
    assert pairing(configured(corpus, Curriculum(selection="shuffled")), shuffled) == "text"
    # at other budgets a schedule reads other text at an offset, constant shares do not
    assert pairing(early, configured(corpus, EARLY, tokens=8192)) == "corpus"
    assert pairing(mixed, configured(corpus, SEVEN_TO_THREE, tokens=8192)) == "tokens"


def test_a_plan_tells_how_often_every_source_is_read(
    corpus: Mixture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Evaluation(tasks=(BitsPerByte(),))
    baseline = configured(corpus, SEVEN_TO_THREE).vary(evaluation=asked)
    arms = tuple(
        Arm(name=name, axis="data.order", configuration=baseline.vary(data__order=order))
        for name, order in (("early", EARLY), ("shuffled", Shuffled()))
    )
    sweep = Sweep(question="?", baseline=baseline, arms=arms, metric=Metric(name="bits_per_byte", smallest_effect=0.1))
    numerics = Numerics(attention="sdpa", precision="float32", device="cpu", threads=1)
    planned, store = plan(sweep, numerics, lambda one: one.data.fingerprint()), Store(tmp_path)  # type: ignore[attr-defined]
    assert sources_read(planned, store) == {}
    facts = prepare(baseline.data, store.cache).facts
    tokens = {source.name: source.training_tokens for source in facts.sources}
    read = sources_read(planned, store)
    assert read["baseline"] == pytest.approx({"old": 4096 * 0.7 / tokens["old"], "new": 4096 * 0.3 / tokens["new"]})
    assert set(read) == {"baseline", "early"}
    show_sources_read(read)
    assert f"baseline reads old {read['baseline']['old']:.3g} times, new" in capsys.readouterr().out


def test_a_metric_of_a_source_is_spoken() -> None:
    assert spoken("bits_per_byte@source=new_york") == "bits per byte on new_york"
