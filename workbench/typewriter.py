"""Text that a model writes, shown as it comes on a terminal, and whole elsewhere.

Promises that what a model writes cannot steer a terminal: control characters but line ends and tabs are shown as
U+FFFD there. A pipe gets the text as it is, several texts with a line `<|endoftext|>` between them, as a corpus has.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Sequence

from workbench.data.corpora import END_OF_TEXT

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey."""
    return CONTROL.sub("\ufffd", text)


class Typewriter:
    """Writes the texts after one prompt to standard output.

    Args:
        prompt: What they begin with.
        spelling: The bytes of every token.
        texts: How many there will be; one alone is shown as it comes.
        prefix: What the tokenizer puts before every text, and is not shown.
    """

    def __init__(self, prompt: str, spelling: Sequence[bytes], texts: int, prefix: str = "") -> None:
        self._prompt, self._spelling, self._texts = prompt, spelling, texts
        self._hidden = b"" if prompt else prefix.encode()
        self._terminal = sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a token may end within a character
        if self._live:
            self._put(printable(prompt))

    @property
    def _live(self) -> bool:
        return self._terminal and self._texts == 1

    def hear(self, text: int, token: int) -> None:
        """Take in the next token of a text."""
        if self._live:
            self._put(printable(self._decoder.decode(self._spelling[token].removeprefix(self._hidden))))
            self._hidden = b""

    def end(self, written: Sequence[str]) -> None:
        """Write what has not been shown yet: the rest of a character, or all texts."""
        if self._live:
            self._put(printable(self._decoder.decode(b"", final=True)) + "\n")
            return
        for number, text in enumerate(written, start=1):
            if self._terminal:
                self._put(f"--- {number} of {self._texts}\n{printable(self._prompt + text)}\n")
            else:
                self._put(f"{END_OF_TEXT}\n" * (number > 1) + f"{self._prompt}{text}\n")

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
