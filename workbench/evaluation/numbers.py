"""Finding the final number in what a model wrote: the rules of lm-evaluation-harness 0.4.13 for GSM8K.

"strict-match" takes the first number after "####"; "flexible-extract" takes the last number there is. Both are compared
without commas, dollar signs, a final full stop, and whatever stands before "####".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")
NONE = "[invalid]"


def ended(text: str, stops: Sequence[str] = STOPS) -> str:
    """Return what stands before the first of the stops."""
    return text[: min((found for stop in stops if (found := text.find(stop)) >= 0), default=len(text))]


def strict(text: str) -> str:
    """Return the number after the first "####"; "[invalid]" where there is none."""
    found = STRICT.search(text)
    return found.group(1).strip() if found else NONE


def flexible(text: str) -> str:
    """Return the last number; "[invalid]" where there is none."""
    found = FLEXIBLE.findall(text)
    return next(group for group in found[-1] if group).strip() if found else NONE


def same(found: str, answer: str) -> bool:
    """Return whether a number is that of the answer, which may be the whole solution."""
    for pattern in IGNORED:
        found, answer = re.sub(pattern, "", found), re.sub(pattern, "", answer)
    return found.lower() == answer.lower()
