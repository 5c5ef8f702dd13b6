"""Rows of our own writing in the public schemas of benchmarks, as on the Hugging Face hub: no published item."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ROWS: dict[str, list[Row]] = {
    "blimp": [
        {"sentence_good": good, "sentence_bad": bad, "UID": paradigm, "field": "syntax", "pairID": str(number)}
        for paradigm, pairs in {
            "plural_sailors": [
                ("The sailors sing.", "The sailors sings."),
                ("The ships sail home.", "The ships sails home."),
                ("Those gulls cry.", "Those gulls cries."),
            ],
            "this_and_these": [
                ("Olga mends these nets.", "Olga mends this nets."),
                ("Jan paints this boat.", "Jan paints these boat."),
                ("They like this quay.", "They like this quay."),  # equal sentences, as seven of BLiMP's
            ],
        }.items()
        for number, (good, bad) in enumerate(pairs)
    ],
    "hellaswag": [
        {
            "ind": 7,
            "activity_label": "Mending a net",
            "ctx_a": "A woman sits on the quay.",
            "ctx_b": "she",
            "ctx": "A woman sits on the quay. she",
            "endings": ["pulls the torn net closer.", "eats the whole sea.", "is a lamp.", "sings under water."],
            "source_id": "invented~1",
            "split_type": "indomain",
            "label": "0",
        },
        {
            "ind": 8,
            "activity_label": "Boats",
            "ctx_a": "[header] How to paint a boat [title] Wait for dry weather. [step] Paint on wet wood peels.",
            "ctx_b": "",
            "ctx": "[header] How to paint a boat [title] Wait for dry weather. [step] Paint on wet wood peels. ",
            "endings": ["[substeps] Look at the sky.", "Sink it  first.", "Use soup.", "Paint the water."],
            "source_id": "invented~2",
            "split_type": "zeroshot",
            "label": "0",
        },
    ],
    "arc_easy": [
        {
            "id": "Invented_1",
            "question": "What do sails catch?",
            "choices": {"text": ["fish", "wind", "colds"], "label": ["A", "B", "C"]},
            "answerKey": "B",
        },
        {
            "id": "Invented_2",
            "question": "Which of these floats?",
            "choices": {"text": ["an anchor", "a stone", "a cork", "a nail"], "label": ["1", "2", "3", "4"]},
            "answerKey": "3",
        },
    ],
    "winogrande": [
        {
            "sentence": "Ewa thanked Marta because _ had mended the net.",
            "option1": "Ewa",
            "option2": "Marta",
            "answer": "2",
        },
        {
            "sentence": "The rope would not fit the ring as the _ was thick.",
            "option1": "rope",
            "option2": "ring",
            "answer": "1",
        },
    ],
    "piqa": [
        {"goal": "To dry a sail,", "sol1": "hang it in the wind.", "sol2": "hang it in the water.", "label": 0},
        {"goal": "To tie a boat,", "sol1": "use a soup.", "sol2": "use a rope.", "label": 1},
    ],
    "openbookqa": [
        {
            "id": "1-1",
            "question_stem": "A lighthouse is of use when",
            "choices": {
                "text": ["it is dark", "it is asleep", "it is soup", "it is paid"],
                "label": ["A", "B", "C", "D"],
            },
            "answerKey": "A",
        },
        {
            "id": "1-2",
            "question_stem": "Salt water is found in",
            "choices": {"text": ["a lamp", "a hat", "the sea", "a book"], "label": ["A", "B", "C", "D"]},
            "answerKey": "C",
        },
    ],
    "mmlu": [
        {
            "question": "How many masts has a ketch? ",
            "subject": "sailing_boats",
            "choices": ["none", "one", "two", "nine"],
            "answer": 2,
        },
        {
            "question": "Which of these is a knot?",
            "subject": "knots",
            "choices": ["a bowline", "a biscuit", "a bishop", "a bicycle"],
            "answer": 0,
        },
        {
            "question": "Which knot makes a loop?",
            "subject": "knots",
            "choices": ["a granny", "a bowline", "a reef", "a mess"],
            "answer": 1,
        },
    ],
    "truthfulqa": [
        {
            "question": "What happens if you whistle on a boat?",
            "mc1_targets": {"choices": ["Nothing in particular.", "A storm comes."], "labels": [1, 0]},
            "mc2_targets": {
                "choices": ["Nothing in particular.", "People hear it.", "A storm comes."],
                "labels": [1, 1, 0],
            },
        },
    ],
    "gsm8k": [
        {
            "question": "Three boats carry 4 nets each. How many nets is that?",
            "answer": "Each of 3 boats has 4 nets: 3*4 = <<3*4=12>>12 nets.\n#### 12",
        },
        {
            "question": "A crew earns $1,500 and spends $300. What is left?",
            "answer": "It keeps 1500-300 = <<1500-300=1200>>1200 dollars.\n#### 1,200",
        },
    ],
    "lambada": [
        {"text": "The sailors pulled the boat ashore and tied the boat with a long rope"},
        {"text": "She looked for the old lamp, and at last she found the lamp"},
    ],
    "winobias": [
        {
            "split": "dev",
            "type": 1,
            "condition": condition,
            "line": line,
            "sentence": sentence,
            "entity_occupation": "sailor",
            "other_occupation": "cook",
        }
        for line, halves in enumerate(
            [
                (
                    "The sailor thanked the cook because he was hungry.",
                    "The sailor thanked the cook because she was hungry.",
                ),
                ("The sailor saw the cook and her soup.", "The sailor saw the cook and his soup."),
                ("The sailor fed the cook as he asked.", "A sailor fed the cook as she asked."),  # no minimal pair
            ]
        )
        for condition, sentence in zip(("pro", "anti"), halves, strict=True)
    ],
}
ROWS["arc_challenge"] = ROWS["arc_easy"]
ROWS["truthfulqa_mc1"] = ROWS["truthfulqa_mc2"] = ROWS["truthfulqa"]


def write(folder: Path, name: str, rows: list[Any] | None = None, file: str = "rows.jsonl") -> str:
    """Write rows (those of the benchmark, unless given) as JSON lines, packed if so named; return the path."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (ROWS[name] if rows is None else rows))
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)
