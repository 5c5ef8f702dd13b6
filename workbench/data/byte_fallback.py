"""Byte-pair encoding with byte fallback, in the style of SentencePiece, rewritten to keep every text.

There `▁` is how a space is written, so that a `▁` of the text itself comes back as a space. Here the two are exchanged
in every token and every merge: a text without `▁` has the tokens that it had, and a `▁` has none of its own any more,
so that it becomes its three bytes, as every character that is not in the vocabulary. The space that many put before a
text, so that its first word is one like others, stands there always and nowhere else: a text that begins with a space
begins with two then, as in SentencePiece itself, where `Metaspace` of the library would lose one; and after an added
token that is no special one none is put, where `Prepend` of the library would put one.

Refuses what would lose text: bytes that are missing, and a step that changes text before it is encoded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from workbench.data.tokenizer import BYTE_NAMES, PREFIXED, as_written_today
from workbench.errors import DataError

MARK = "▁"
EXCHANGED = str.maketrans({MARK: " ", " ": MARK})
PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


class _Style(NamedTuple):
    """Whether a space is written `▁`; whether one is put before a text; whether words are parted before merging."""

    marked: bool
    prefixed: bool
    parted: bool


def falls_back(described: dict[str, Any]) -> bool:
    """Whether a tokenizer.json is of this kind: characters, and bytes where a character is not in the vocabulary."""
    model = described["model"]
    return model.get("type", "BPE") == "BPE" and bool(model.get("byte_fallback")) and not _is_byte_level(described)


def rewritten(described: dict[str, Any], place: Path, normalized: bool) -> dict[str, Any]:
    """Return a tokenizer in which spaces are spaces.

    Args:
        described: What its tokenizer.json says.
        place: Where that lies.
        normalized: Whether a step that changes text is refused, and not left out.

    Raises:
        DataError: if it has a step that changes text, or lacks a byte.
    """
    described = as_written_today(json.dumps(described), place)  # which knows how older versions wrote it
    style = _style(described, place, normalized)
    model = described["model"]
    if missing := [name for name in BYTE_NAMES if name not in model["vocab"]]:
        raise DataError(
            "a tokenizer cannot write every text",
            where=f"{place}, model.vocab",
            expected="the 256 bytes, <0x00> to <0xFF>, to fall back on",
            got=f"no {missing[0]}" + (f" and {len(missing) - 1} others" if len(missing) > 1 else ""),
        )
    added = list(_added(described, style))
    taken = {token["id"] for token in added}
    unknown, marks = model["unk_token"], EXCHANGED if style.marked else {}
    if unknown in model["vocab"] and model["vocab"][unknown] not in taken:
        added.append({"id": model["vocab"][unknown], "content": unknown, **PLAIN, "special": True})
        taken.add(model["vocab"][unknown])
    pieces = {piece.translate(marks): token for piece, token in model["vocab"].items() if token not in taken}
    merges = [[half.translate(marks) for half in pair] for pair in model["merges"]]
    model["vocab"] = pieces | {token["content"]: token["id"] for token in added}
    made = model["vocab"].keys() - BYTE_NAMES.keys()
    model["merges"] = [pair for pair in merges if made >= {*pair, "".join(pair)}]
    model["dropout"] = None
    described["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    described["normalizer"] = PREFIXED if style.prefixed else None
    words = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": False}
    described["pre_tokenizer"] = words if style.parted else None
    return described


def _added(described: dict[str, Any], style: _Style) -> Any:
    """Yield the added tokens that a text can have, and the special ones, which none has.

    A byte is no added token, though the library's trainer makes it one. One that looks for a `▁` as it is would find
    what is encoded by its bytes here.
    """
    for token in described["added_tokens"]:
        found, marked = token["content"], style.marked and MARK in token["content"]
        if found in BYTE_NAMES or (marked and not token["special"] and not token["normalized"]):
            continue
        alone = token["single_word"]
        yield {**token, **PLAIN, "single_word": alone, "content": found.translate(EXCHANGED) if marked else found}


def _style(described: dict[str, Any], place: Path, normalized: bool) -> _Style:
    marked = parted = False
    prefixed, unknown = list[str](), list[str]()
    for step in steps(described["normalizer"], "normalizers"):
        replaced = step["type"] == "Replace" and step["content"] == MARK
        if step["type"] == "Prepend" and step["prepend"] in (MARK, " "):
            prefixed.append(step["prepend"])
        elif replaced and step["pattern"] in ({"String": " "}, {"Regex": " "}):
            marked = True
        elif normalized:
            unknown.append(step["type"])
    for step in steps(described["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace" and step["replacement"] == MARK:
            marked, parted = True, parted or step["split"]
            prefixed += [MARK] if step["prepend_scheme"] != "never" else []
        elif step["type"] == "Split" and step["pattern"] == {"String": " "} and not step["invert"]:
            # where spaces have been replaced before, as in Gemma's, there is nothing to part
            parted = parted or (not marked and step["behavior"] == "MergedWithNext")
        else:
            unknown.append(step["type"])
    if not marked and MARK in prefixed:
        unknown.append(f"Prepend of {MARK} where spaces are no {MARK}")
    if unknown:
        raise DataError(
            "a tokenizer changes text, or parts it in a way that is not known here",
            where=place,
            expected=f"byte fallback with spaces that become {MARK}, as of Llama 2, Mistral or Gemma",
            got=", ".join(unknown),
            fix='leave its normalizer out, if that is why: HuggingFaceTokenizer(path="...", normalizer="dropped")',
        )
    return _Style(marked, bool(prefixed), parted)


def steps(described: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or a pre-tokenizer, each as the library writes it to a file."""
    if described is None:
        return []
    if described["type"] != "Sequence":
        return [described]
    return [step for one in described[several] for step in steps(one, several)]


def _is_byte_level(described: dict[str, Any]) -> bool:
    found = described.get("pre_tokenizer")
    return any(step.get("type") == "ByteLevel" for step in steps(found, "pretokenizers"))
