"""Small tokenizers in the style of SentencePiece, made by the library `tokenizers` as published ones are."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

STORY = "the old ship sailed over a calm sea while sailors sang of home and the wives of sailors sang too"
CODE = ["def sail(ship):", "    for sea in ship.seas:", "        sea.cross()", "    return ship", "żółta łódź"]
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}


def metaspace(scheme: str, split: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


# normalizer and pre-tokenizer, as published
STYLES: dict[str, tuple[Any, Any]] = {
    "llama2": ({"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, None),
    "mistral": (None, metaspace("first", split=False)),
    "parted": (None, metaspace("always", split=True)),
    "gemma": (
        REPLACE,
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    ),
}
BEGINS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


@cache
def _trained() -> str:
    from tokenizers import Tokenizer, models, normalizers, trainers

    model = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))  # noqa: S106 - no password
    model.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=[*SPECIAL, *BYTES], show_progress=False)
    words = [piece for text in [" " + STORY, *CODE] * 5 for piece in re.findall(r" *[^ ]+", text)]
    model.train_from_iterator([word for word in words if "ż" not in word], trainer)
    return str(model.to_str())


def described(style: str = "llama2") -> dict[str, Any]:
    """Return a tokenizer.json: <unk>, <s>, </s>, the 256 bytes, characters and merges; 360 tokens."""
    found: dict[str, Any] = json.loads(_trained())
    found["normalizer"], found["pre_tokenizer"] = deepcopy(STYLES[style])
    found["post_processor"] = BEGINS
    found["added_tokens"] = [token for token in found["added_tokens"] if token["content"] in SPECIAL]
    steps: list[Any] = [
        {**REPLACE, "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    steps += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if style != "gemma" else []
    found["decoder"] = {"type": "Sequence", "decoders": steps}
    return found


def write_folder(folder: Path, found: dict[str, Any] | None = None, kind: str = "LlamaTokenizer") -> Path:
    """Write tokenizer.json and tokenizer_config.json; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.dumps(found or described(), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(written, encoding="utf-8")
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **names}), encoding="utf-8")
    return folder
