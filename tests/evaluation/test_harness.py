"""Tasks of lm-evaluation-harness: what it asks of any model, what it judges of ours, and a task of a user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.initialisation import initialise
from architectures.norms import RMSNorm
from architectures.positions import Rotary
from architectures.transformer import Transformer
from workbench.data.prepared import Prepared
from workbench.errors import DataError, WorkbenchError
from workbench.evaluation import harness
from workbench.evaluation.asking import Asked
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.tasks import Evaluation, LmEval
from workbench.identity import digest
from workbench.seeds import generator, standard_normal

pytest.importorskip("lm_eval", reason="needs the extra 'eval'")
pytest.importorskip("transformers", reason="needs the extra 'eval'")
from workbench.evaluation.adapter import Adapter

CONTEXT = 16
CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
num_fewshot: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
WORDS = ["ship", "sea", "old", "calm", "sailors", "home", "żagle", "the", "over"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def items(count: int) -> list[dict[str, Any]]:
    """Return questions of one to six words and two to four choices of one to four."""
    random = generator(0, "tests/harness")
    return [
        {
            "question": " ".join(random.choice(WORDS, random.integers(1, 7))) + ("" if number % 3 else " "),
            "choices": [
                f"{letter} " + " ".join(random.choice(WORDS, random.integers(1, 5)))
                for letter in "abcd"[: int(random.integers(2, 5))]
            ],
            "gold": int(number % 2),
            "text": " ".join(random.choice(WORDS, 3 + 5 * (number % 4))),
        }
        for number in range(count)
    ]


def definition(folder: Path, text: str, count: int = 12, name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items(count)), encoding="utf-8")
    (folder / f"{name}.yaml").write_text(text.format(name=name, data=data), encoding="utf-8")
    return folder / f"{name}.yaml"


@pytest.fixture
def choices(tmp_path: Path) -> Path:
    return definition(tmp_path / "tasks", CHOICES)


@pytest.fixture(scope="module")
def llama() -> tuple[Architecture, Transformer]:
    """A model that Llama can express, far from uniform."""
    architecture = Architecture(
        width=16, layers=2, context=CONTEXT, vocabulary=320, position=Rotary(), attention=MultiHead(heads=2),
        feed_forward=SwiGLU(width=32), norm=RMSNorm(), embedding=Table(tied=True),
    )  # fmt: skip
    built = architecture.build()
    initialise(built, architecture, lambda name, shape: 20 * standard_normal(0, f"initialisation/{name}", shape))
    return architecture, built.eval()


@pytest.fixture
def asked(llama: tuple[Architecture, Transformer], prepared: Prepared) -> Asked:
    return Asked(llama[1], prepared.tokenizer, CONTEXT, batch=64)


@pytest.fixture(scope="module")
def theirs(
    llama: tuple[Architecture, Transformer], prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The harness's own model of Hugging Face, loaded from the exported folder: the oracle."""
    from lm_eval.models.huggingface import HFLM

    folder = tmp_path_factory.mktemp("exported")
    architecture, model = llama
    export_model(model, architecture, folder, end_of_text=prepared.tokenizer.end_of_text)
    prepared.tokenizer.publish(folder, CONTEXT)
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number, ("task", number, 1)) for number, one in enumerate(arguments)]


def test_continuations_cost_what_they_cost_the_harness(asked: Asked, theirs: Any) -> None:
    pairs = [("", " the old ship"), ("the old ", "sea"), ("the old", " sea"), ("the old", " sea"), ("żagle", " żagle")]
    pairs += [("over the calm sea sailors sang of home while " * 3, f"the {word}") for word in WORDS]
    requests = instances("loglikelihood", pairs)
    adapter = Adapter(asked)
    ours, oracle = adapter.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True)
    np.testing.assert_allclose([one for one, _ in ours], [one for one, _ in oracle], atol=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in oracle]
    assert any(greedy for _, greedy in ours) or len({round(one) for one, _ in ours}) > 5
    assert adapter.truncated == {("task", number) for number in range(5, len(pairs))}


def test_texts_cost_what_they_cost_the_harness(asked: Asked, theirs: Any) -> None:
    requests = instances("loglikelihood_rolling", [(" ".join(WORDS[:1] * size + WORDS),) for size in (0, 1, 9, 40)])
    ours = Adapter(asked).loglikelihood_rolling(requests)
    np.testing.assert_allclose(ours, theirs.loglikelihood_rolling(requests, disable_tqdm=True), rtol=1e-5)


def test_what_is_written_ends_where_the_harness_ends_it(asked: Asked, theirs: Any) -> None:
    free = Adapter(asked).generate_until(instances("generate_until", [("the old", {"until": [], "max_gen_toks": 8})]))
    stop = free[0][3:5]
    asking = [(text, {"until": [stop], "max_gen_toks": 8}) for text in ("the old", "calm sea over", "home " * 20)]
    requests = instances("generate_until", asking)
    ours = Adapter(asked).generate_until(requests)
    assert ours == theirs.generate_until(requests, disable_tqdm=True)
    assert free[0].startswith(ours[0])
    assert len(ours[0]) <= 3


def test_a_way_of_writing_that_we_do_not_have_is_refused(asked: Asked) -> None:
    with pytest.raises(WorkbenchError, match="written in a way"):
        Adapter(asked).generate_until(instances("generate_until", [("a", {"until": ["b"], "num_beams": 4})]))


def test_a_task_of_a_file_is_judged_as_the_harness_judges(
    choices: Path, llama: tuple[Architecture, Transformer], prepared: Prepared, theirs: Any
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    task = LmEval(task=str(choices), scored=("acc", "acc_norm"))
    table = evaluate(llama[1], prepared, Evaluation(tasks=(task,)), score_id="s", context=CONTEXT).to_pandas()
    manager = TaskManager(include_path=str(choices.parent), include_defaults=False)
    oracle = lm_eval.simple_evaluate(model=theirs, tasks=["mine"], task_manager=manager, bootstrap_iters=0)
    for metric in ("acc", "acc_norm"):
        rows = table[table["metric"] == metric].sort_values("item")
        samples = sorted(oracle["samples"]["mine"], key=lambda sample: sample["doc_id"])
        assert rows["value"].tolist() == [sample[metric] for sample in samples]
        names = [f"{sample['doc_id']:06d}-{sample['doc_hash'][:12]}" for sample in samples]
        assert rows["item"].astype(str).tolist() == names
    margins = table[table["metric"] == "margin"].sort_values("item")["value"].to_numpy()
    for sample, margin in zip(samples, margins, strict=True):
        held = [float(one[0]) for one in sample["filtered_resps"]]
        truth = held.pop(sample["target"])
        assert margin == pytest.approx(truth - max(held), abs=1e-4)
    assert set(table["task"].astype(str)) == {task.label}


def test_fewer_items_are_some_of_all_and_the_same_every_time(
    choices: Path, llama: tuple[Architecture, Transformer], prepared: Prepared
) -> None:
    some = [
        evaluate(llama[1], prepared, Evaluation(tasks=(task,)), score_id="s", context=CONTEXT).to_pandas()
        for task in (LmEval(task=str(choices), items=5), LmEval(task=str(choices), items=5), LmEval(task=str(choices)))
    ]
    assert some[0].equals(some[1])
    assert some[0]["item"].nunique() == 5
    keys = ["metric", "item"]
    both = some[0].astype(dict.fromkeys(keys, str)).merge(some[2].astype(dict.fromkeys(keys, str)), on=keys)
    np.testing.assert_allclose(both["value_x"], both["value_y"], atol=1e-4)
    assert len(both) == len(some[0])


def test_a_group_clusters_by_its_subtasks(
    tmp_path: Path, llama: tuple[Architecture, Transformer], prepared: Prepared
) -> None:
    for name in ("one", "two"):
        definition(tmp_path, CHOICES, 6, name)
    (tmp_path / "both.yaml").write_text("group: both\ntask: [one, two]\n")
    task = LmEval(task="both", include_path=str(tmp_path), items=7)
    table = evaluate(llama[1], prepared, Evaluation(tasks=(task,)), score_id="s", context=CONTEXT).to_pandas()
    counts = table[table["metric"] == "acc"]["cluster"].astype(str).value_counts().to_dict()
    assert counts == {"one": 4, "two": 3}


def test_content_is_identity_and_the_path_is_not(tmp_path: Path) -> None:
    texts = {"here": CHOICES, "there": CHOICES, "changed": CHOICES.replace("acc_norm", "acc_bytes")}
    hashes = {}
    for folder, text in texts.items():
        path = definition(tmp_path / folder, text.replace("{data}", "items.jsonl"))
        hashes[folder] = digest(LmEval(task=str(path)))
    assert hashes["here"] == hashes["there"] != hashes["changed"]
    local = definition(tmp_path / "local", CHOICES)
    before = digest(LmEval(task=str(local)))
    with (tmp_path / "local" / "mine.jsonl").open("a") as lines:
        lines.write(json.dumps(items(13)[-1]) + "\n")
    assert digest(LmEval(task=str(local))) != before


def test_a_metric_that_does_not_come_is_named(
    choices: Path, llama: tuple[Architecture, Transformer], prepared: Prepared
) -> None:
    ask = Evaluation(tasks=(LmEval(task=str(choices), scored=("exact_match",)),))
    with pytest.raises(DataError, match="does not leave what was declared") as refused:
        evaluate(llama[1], prepared, ask, score_id="s", context=CONTEXT)
    assert "acc, acc_norm, margin" in str(refused.value)


def test_data_that_cannot_be_reached_says_how_to_use_local_files(tmp_path: Path, prepared: Prepared) -> None:
    text = CHOICES.replace("dataset_path: json", "dataset_path: nobody/nothing")
    text = text.replace("dataset_kwargs: {{data_files: {{test: {data}}}}}\n", "")
    with pytest.raises(DataError, match="cannot be reached") as refused:
        harness.draw(LmEval(task=str(definition(tmp_path, text))), prepared, CONTEXT)
    assert "data_files" in str(refused.value)
    assert "include_path" in str(refused.value)


@pytest.mark.parametrize(("text", "told"), [("a: [", "no YAML"), ("words", "no fields")])
def test_a_definition_that_is_none_is_named(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(DataError, match=told):
        LmEval(task=str(tmp_path / "bad.yaml")).source_hash()
    with pytest.raises(DataError, match="cannot be read"):
        LmEval(task=str(tmp_path / "absent.yaml")).source_hash()
