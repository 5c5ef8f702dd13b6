"""The harness's own definitions on real items, put to our adapter and to its own model of the same exported weights.

Definitions are copied from the installed harness, with their data exchanged for local files.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from architectures.architecture import Architecture
from architectures.attention import MultiHead
from architectures.embeddings import Table
from architectures.exchange import export_model
from architectures.feedforward import SwiGLU
from architectures.initialisation import initialise
from architectures.norms import RMSNorm
from architectures.positions import Rotary
from workbench.data.corpora import Speeches, read_documents
from workbench.data.tokenizer import BytePairs
from workbench.evaluation.asking import Asked
from workbench.seeds import standard_normal

REAL = Path(__file__).parents[1].parent / "shared" / "data"
CONTEXT, VOCABULARY = 512, 4096

# what the definitions of its subjects begin with
ABOUT = json.dumps(
    "The following are multiple choice questions (with answers) about {{subject|replace('_', ' ')}}.\n\n"
)


class Definition(NamedTuple):
    """A definition of the harness, the file of its items, and what has to be said otherwise."""

    yaml: str
    data: str
    changes: tuple[tuple[str, str], ...] = ()
    benchmark: str = ""
    stratum: str = ""


FILES = {
    "blimp": Definition("blimp/_template_yaml", "blimp.jsonl.gz", (), "blimp", "UID"),
    "arc_easy": Definition("arc/arc_easy.yaml", "arc_easy_test.jsonl.gz", (), "arc_easy"),
    "winogrande": Definition("winogrande/default.yaml", "winogrande_dev.jsonl.gz", (), "winogrande"),
    "hellaswag": Definition(
        "hellaswag/hellaswag.yaml",
        "hellaswag_val.jsonl.gz",
        # the copy in hand is preprocessed already
        (("{{query}}", "{{activity_label}}: {{ctx}}"), ('doc_to_choice: "choices"', 'doc_to_choice: "endings"')),
        "hellaswag",
    ),
    "mmlu": Definition(
        "mmlu/default/_default_template_yaml",
        "mmlu_test.jsonl.gz",
        (("output_type:", f"description: {ABOUT}\noutput_type:"),),
        "mmlu",
        "subject",
    ),
    "truthfulqa_mc1": Definition("truthfulqa/truthfulqa_mc1.yaml", "truthfulqa.jsonl.gz", (), "truthfulqa_mc1"),
    "truthfulqa_mc2": Definition("truthfulqa/truthfulqa_mc2.yaml", "truthfulqa.jsonl.gz", (), "truthfulqa_mc2"),
}


class Compared(NamedTuple):
    """What two models of the same weights said of a task."""

    items: int
    requests: int
    difference: float
    greedy_alike: int
    accuracy: float
    theirs: float
    asked: set[tuple[str, str]]


def rows(definition: Definition, count: int | None) -> list[dict[str, Any]]:
    """Return `count` rows of a file, evenly from its strata, or evenly from all."""
    with gzip.open(REAL / definition.data, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    if count is None or count >= len(found):
        return found
    if not definition.stratum:
        return found[:: len(found) // count][:count]
    strata = defaultdict(list)
    for row in found:
        strata[row[definition.stratum]].append(row)
    turns = sorted((turn, place) for place, held in enumerate(strata.values()) for turn in range(len(held)))
    groups = list(strata.values())
    return [groups[place][turn] for turn, place in turns[:count]]


def task_of(name: str, folder: Path, count: int | None) -> tuple[Any, Path]:
    """Copy a definition with its functions, give it local items, and load it."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    definition = FILES[name]
    source = Path(lm_eval.tasks.__file__).parent / definition.yaml
    folder.mkdir()
    for path in (*source.parent.glob("*.py"), *source.parent.glob("*yaml")):
        shutil.copy(path, folder)
    data = folder / f"{name}.jsonl"
    # scalars of one schema for all rows: columns that some rows lack, or that differ in type, are not asked about
    kept = rows(definition, count)
    shared = set.intersection(*(set(row) for row in kept)) - {"pairID", "source"}
    data.write_text("".join(json.dumps({key: row[key] for key in sorted(shared)}) + "\n" for row in kept))
    text = (folder / source.name).read_text()
    if "include:" in text:
        included = re.search(r"^include: (.*)$", text, re.MULTILINE)
        assert included is not None
        own = {line.partition(":")[0] for line in text.splitlines() if re.match(r"\w+:", line)}
        base = (folder / included[1]).read_text()
        text = (
            "\n".join(block for block in re.split(r"\n(?=\w+:)", base) if block.partition(":")[0] not in own)
            + "\n"
            + text
        )
    for old, new in definition.changes:
        text = text.replace(old, new)
    dropped = r"^(include|task|tag|dataset_path|dataset_name|process_docs|fewshot_split|\w+_split):.*\n(  ?-.*\n)*"
    text = re.sub(dropped, "", text + "\n", flags=re.MULTILINE)
    text = re.sub(r"^fewshot_config:\n(  .*\n)*", "", text, flags=re.MULTILINE)
    text += f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
    path = folder / "local.yaml"
    path.write_text(text)
    task = TaskManager(include_defaults=False).load([str(path)])["tasks"][name]
    task.set_config(key="num_fewshot", value=0)
    return task, data


def compare(name: str, folder: Path, count: int | None, asked: Asked, theirs: Any) -> Compared:
    """Put the same requests of a task to our adapter and to the harness's own model."""
    from workbench.evaluation.adapter import Adapter

    task, _ = task_of(name, folder, count)
    task.build_all_requests()
    requests = task.instances
    ours = Adapter(asked).loglikelihood(requests)
    oracle = theirs.loglikelihood(requests, disable_tqdm=True)
    both = np.array([one for one, _ in ours]), np.array([one for one, _ in oracle])
    documents = defaultdict(list)
    for number, request in enumerate(requests):
        documents[request.doc_id].append(number)
    judged: list[list[float]] = [[], []]
    for numbers in documents.values():
        for held, answers in zip(judged, (ours, oracle), strict=True):
            found = task.process_results(requests[numbers[0]].doc, [answers[number] for number in numbers])
            held.append(float(found["acc"]))
    return Compared(
        items=len(documents),
        requests=len(requests),
        difference=float(np.abs(both[0] - both[1]).max()),
        greedy_alike=sum(one == other for (_, one), (_, other) in zip(ours, oracle, strict=True)),
        accuracy=float(np.mean(judged[0])),
        theirs=float(np.mean(judged[1])),
        asked={request.args[:2] for request in requests},
    )


def exported(folder: Path, width: int = 64, layers: int = 2) -> tuple[Asked, Any]:
    """Return a model of random weights far from uniform, ours and as the harness loads it from the exported folder."""
    from lm_eval.models.huggingface import HFLM

    texts = [document.text for document in read_documents(Speeches())][-40:]
    tokenizer = BytePairs(vocabulary=VOCABULARY).train(texts)
    architecture = Architecture(
        width=width, layers=layers, context=CONTEXT, vocabulary=VOCABULARY, position=Rotary(),
        attention=MultiHead(heads=4), feed_forward=SwiGLU(width=2 * width), norm=RMSNorm(), embedding=Table(tied=True),
    )  # fmt: skip
    model = architecture.build()
    initialise(model, architecture, lambda name, shape: 8 * standard_normal(0, f"initialisation/{name}", shape))
    export_model(model.eval(), architecture, folder, end_of_text=tokenizer.end_of_text)
    tokenizer.publish(folder, CONTEXT)
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=16)
    return Asked(model, tokenizer, CONTEXT), theirs
