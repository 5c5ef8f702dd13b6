"""What a teacher says about the next token, kept on disk, so that every student and every seed pays for it once.

A teacher reads each training document by itself, after an end_of_text, in windows of its own context; of a window that
begins within a document only the second half is kept, so that whatever it says rests on at least half a context. What
it says about the token after place i of the token file is kept under i. After the end of a document comes another,
drawn by the data seed: what stands there is what the teacher says after an end_of_text alone.

Kept are the `top` most probable tokens with their log-probabilities in float16, and the log of all other mass, which
is shared among the other tokens by the square root of how often they come in the training text. With `top` at the
whole vocabulary nothing is lost but float16's rounding. Below that the order in which a teacher sees the others is
lost, and its distribution mostly is flatter than it was, the more so the less sure it is: of a teacher at 5.5 nats per
token and 2,048 tokens, the entropy of 5.79 nats becomes 6.12, 5.91 and 5.80 with `top` at 32, 128 and 512, at a
divergence of 0.28, 0.14 and 0.04 (shared evenly 0.47, 0.20 and 0.05; by frequency itself 0.36, 0.24 and 0.09). The
learning curve shows the mass that is kept as it was said.

What is said about a document depends on teacher and document alone, bit for bit, and never on which other documents
were asked about with it. Refuses to fill a disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workbench.data.building import Report, sole_builder, whole
from workbench.data.prepared import TokenFile
from workbench.errors import DataError, StoreError
from workbench.identity import digest
from workbench.records import Numerics
from workbench.training.numerics import autocast
from workbench.training.teachers import Speaker

LAYOUT = 1  # raised when the files, or what is kept in them, change
LOGITS_AT_ONCE = 2**25  # of one forward pass: 128 MiB in float32
COUNTED = 2**24  # tokens of the file by which frequencies are told
TOKENS_A_PART = 2**18  # what an interruption costs, at most; a part holds whole documents


@dataclass(frozen=True)
class Statement:
    """Distributions over the next token: (batch, time) of them.

    Attributes:
        ids: int64 (batch, time, top).
        logs: float32 (batch, time, top): their log-probabilities.
        rest: float32 (batch, time): what is added to `prior` for the log-probability of any other token; None where
            there is none.
        prior: float32 (vocabulary,): logs of how the mass of all others is shared among them.
    """

    ids: Tensor
    logs: Tensor
    rest: Tensor | None
    prior: Tensor

    @classmethod
    def of(cls, ids: Tensor, logs: Tensor, mass: Tensor, prior: Tensor) -> Statement:
        """Share `mass`, the log of what all other tokens have together, by the prior, and let all sum to one."""
        if ids.shape[-1] == len(prior):
            return cls(ids, logs - logs.logsumexp(-1, keepdim=True), None, prior)
        total = torch.cat([logs, mass[..., None]], -1).logsumexp(-1)
        return cls(ids, logs - total[..., None], mass - total - _others(prior.double().exp(), ids).log().float(), prior)

    def softened(self, temperature: float) -> Statement:
        """Return the distributions at a temperature: p^(1/T), rescaled to sum to one."""
        if temperature == 1:
            return self
        logs, prior, mass = self.logs / temperature, self.prior / temperature, torch.zeros_like(self.logs[..., 0])
        if self.rest is not None:
            mass = self.rest / temperature + _others(prior.double().exp(), self.ids).log().float()
        return Statement.of(self.ids, logs, mass, prior)

    def expected(self, values: Tensor) -> Tensor:
        """Return the mean of `values`, (batch, time, vocabulary), under every distribution, float32 (batch, time)."""
        known = values.gather(-1, self.ids)
        top = (self.logs.exp() * known).sum(-1)
        if self.rest is None:
            return top
        others = self.prior.exp()
        return top + self.rest.exp() * (values @ others - (others[self.ids] * known).sum(-1))

    def expected_logs(self, probable: Tensor) -> Tensor:
        """Return the mean of the distributions' logs under `probable`, (batch, time, vocabulary)."""
        known = probable.gather(-1, self.ids)
        top = (known * self.logs).sum(-1)
        if self.rest is None:
            return top
        others = probable @ self.prior - (known * self.prior[self.ids]).sum(-1)
        return top + (1 - known.sum(-1)) * self.rest + others

    def kept(self) -> Tensor:
        """Return the mass of the tokens that were kept, float32 (batch, time)."""
        return self.logs.exp().sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of every distribution in nats, float32 (batch, time)."""
        top = -(self.logs.exp() * self.logs).sum(-1)
        if self.rest is None:
            return top
        weights = self.prior.double().exp()
        others = self.rest * _others(weights, self.ids) + _others(weights * self.prior, self.ids)
        return top - (self.rest.exp() * others).float()

    def to(self, device: torch.device) -> Statement:
        """Return the same on another device."""
        rest = None if self.rest is None else self.rest.to(device)
        return Statement(self.ids.to(device), self.logs.to(device), rest, self.prior.to(device))


def _others(values: Tensor, ids: Tensor) -> Tensor:
    """Return the sum of `values`, float64 (vocabulary,), over all tokens but `ids`, (batch, time, top)."""
    return values.sum() - values[ids].sum(-1)


def shares(tokens: np.ndarray, vocabulary: int) -> Tensor:
    """Return the logs of how mass is shared that was not kept, float32 (vocabulary,): by the root of frequencies.

    What is most frequent and was not kept was not kept because the teacher finds it unlikely here.
    """
    roots = np.sqrt(np.bincount(np.asarray(tokens[:COUNTED]), minlength=vocabulary) + 1)
    return torch.from_numpy(np.log(roots / roots.sum()).astype(np.float32))


class Opinions:
    """What one teacher says at the places of one token file.

    Args:
        folder: Where it is kept, named by teacher, data, `top` and numerics.
        train: The documents.
        vocabulary: Tokens the student has.
        top: Of them, how many are kept at each place.
        end_of_text: Its id.
        speaker: Loads the teacher, the first time that something is not known yet.
        numerics: Under which it is asked.
        report: Told, in words, what is being done.
    """

    def __init__(
        self,
        folder: Path,
        train: TokenFile,
        *,
        vocabulary: int,
        top: int,
        end_of_text: int,
        speaker: Callable[[], Speaker],
        numerics: Numerics,
        report: Report = lambda line: None,
    ) -> None:
        self.vocabulary, self.top = vocabulary, top
        self._folder, self._train, self._end, self._numerics = folder, train, end_of_text, numerics
        self._load, self._report = speaker, report
        self._speaker: Speaker | None = None
        self._prior = shares(train.tokens, vocabulary)
        self._parts: dict[str, _Part] = {}
        self._where = np.full(len(train.offsets) - 1, -1, np.int32)  # number of the part that holds a document
        self._rows = np.zeros(len(train.offsets) - 1, np.int64)  # and the row of its first token there
        self._look()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def at(self, places: Tensor) -> Statement:
        """Return what is said about the token after each of `places`, int64 (batch, time), on their device.

        Documents that nobody asked about before are asked about now.
        """
        flat = places.detach().cpu().numpy().ravel()
        documents = self.documents(flat)
        self.gather(np.unique(documents))
        rows, held = self._rows[documents] + flat - self._train.offsets[documents], self._where[documents]
        ids = np.empty((len(flat), self.top), np.int64)
        logs, mass = np.empty((len(flat), self.top), np.float32), np.empty(len(flat), np.float32)
        parts = list(self._parts.values())
        for number in np.unique(held):
            here = held == number
            part = parts[number]
            ids[here], logs[here], mass[here] = part.ids[rows[here]], part.logs[rows[here]], part.mass[rows[here]]
        shape = tuple(places.shape)
        said = Statement.of(
            torch.from_numpy(ids).view(*shape, self.top),
            torch.from_numpy(logs).view(*shape, self.top),
            torch.from_numpy(mass).view(shape),
            self._prior,
        )
        return said.to(places.device)

    def documents(self, places: np.ndarray) -> np.ndarray:
        """Return the document in which each of `places` lies, int64 of the same shape."""
        found: np.ndarray = np.searchsorted(self._train.offsets, places, side="right") - 1
        return found

    def unknown(self, documents: np.ndarray) -> np.ndarray:
        """Return which of `documents` nobody asked about yet, in their order in the token file."""
        if (self._where[documents] < 0).any():
            self._look()
        return np.unique(documents[self._where[documents] < 0])

    def gather(self, documents: np.ndarray) -> None:
        """Ask the teacher about those of `documents` that are not known yet, and keep what it says.

        Raises:
            StoreError: if the disk has no room for it.
        """
        if not len(self.unknown(documents)):
            return
        try:
            with sole_builder(self._folder, self._report, "asks the same teacher"):
                self._folder.mkdir(exist_ok=True)
                missing = self.unknown(documents)
                self._refuse_to_fill_the_disk(missing)
                for some in self._portions(missing):
                    self._write(some)
        except OSError as error:
            raise StoreError(
                "the cache cannot be written",
                where=error.filename or self._folder,
                got=error.strerror or str(error),
                fix="free some space, or name another runtime folder with --home FOLDER or WORKBENCH_HOME",
            ) from None
        self._look()

    def bytes(self, documents: np.ndarray) -> int:
        """Return what keeping these documents takes."""
        width = self._width().itemsize
        return int(self._lengths(documents).sum()) * (self.top * (width + 2) + 2)

    def dismiss(self) -> None:
        """Free the memory of the teacher; it is loaded again when there is something to ask."""
        self._speaker = None

    def _width(self) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)

    def _lengths(self, documents: np.ndarray) -> np.ndarray:
        offsets: np.ndarray = self._train.offsets
        lengths: np.ndarray = offsets[documents + 1] - offsets[documents]
        return lengths

    def _look(self) -> None:
        """Take in the parts that are on disk and not known here yet."""
        for folder in sorted(self._folder.glob("part-*")):
            if folder.name in self._parts:
                continue
            part = _Part.read(folder)
            lengths = self._lengths(part.documents)
            self._where[part.documents] = len(self._parts)
            self._rows[part.documents] = np.cumsum(lengths) - lengths
            self._parts[folder.name] = part

    def _portions(self, documents: np.ndarray) -> Iterator[np.ndarray]:
        numbers = (np.cumsum(self._lengths(documents)) - 1) // TOKENS_A_PART
        for number in np.unique(numbers):
            yield documents[numbers == number]

    def _write(self, documents: np.ndarray) -> None:
        total = int(self._lengths(documents).sum())
        self._report(f"a teacher reads {len(documents):,} documents ({total:,} tokens)")
        said = [self._ask(document) for document in documents.tolist()]
        with whole(self._folder / f"part-{digest(documents.tolist())}") as part:
            np.save(part / "documents.npy", documents)
            for name, pieces in zip(("ids", "logs", "mass"), zip(*said, strict=True), strict=True):
                np.save(part / f"{name}.npy", np.concatenate(pieces))

    def _ask(self, document: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ids, log-probabilities and the log of the other mass at every place of a document, in its order."""
        if self._speaker is None:
            self._speaker = self._load()
        start, stop = self._train.offsets[document : document + 2]
        read = np.concatenate([[self._end], np.asarray(self._train.tokens[start : stop - 1])]).astype(np.int64)
        text = torch.from_numpy(read).to(self._numerics.device)
        kept: list[tuple[Tensor, ...]] = []
        for windows, skipped in _windows(text, self._speaker.context, max(1, LOGITS_AT_ONCE // self.vocabulary)):
            with torch.inference_mode(), autocast(self._numerics):
                logits = self._speaker.logits(windows, skipped)
            kept.append(tuple(value.flatten(0, 1) for value in strongest(logits, self.top)))
        ids, logs, mass = (torch.cat(pieces).cpu().roll(-1, 0).numpy() for pieces in zip(*kept, strict=True))
        return ids.astype(self._width()), logs.astype(np.float16), mass.astype(np.float16)

    def _refuse_to_fill_the_disk(self, documents: np.ndarray) -> None:
        needed, free = self.bytes(documents), shutil.disk_usage(self._folder).free
        if needed > 0.9 * free:
            raise StoreError(
                "what a teacher says does not fit on the disk",
                where=self._folder,
                expected=f"{needed / 1e9:,.1f} GB for {int(self._lengths(documents).sum()):,} tokens, "
                f"the {self.top} most probable next tokens of each",
                got=f"{free / 1e9:,.1f} GB free",
                fix="lower distillation.top, train on fewer tokens, or name another runtime folder with --home",
            )


@dataclass(frozen=True)
class _Part:
    documents: np.ndarray
    ids: np.ndarray
    logs: np.ndarray
    mass: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> _Part:
        try:
            held = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "logs", "mass")]
            return cls(np.load(folder / "documents.npy"), *held)
        except (OSError, ValueError) as error:
            raise DataError(
                "what a teacher said is damaged",
                where=folder,
                got=str(error).splitlines()[0],
                fix="remove this folder; the teacher is asked again",
            ) from None


def strongest(logits: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids and log-probabilities of the `top` most probable tokens, and the log of all other mass.

    Args:
        logits: (..., vocabulary).
        top: How many.

    Returns:
        int64 (..., top), float32 (..., top) and float32 (...), which is -inf where there are no others.
    """
    logs = functional.log_softmax(logits.float(), -1)
    found, ids = logs.topk(top, -1)
    return ids, found, logs.scatter(-1, ids, -torch.inf).logsumexp(-1)


def _windows(text: Tensor, context: int, at_once: int) -> Iterator[tuple[Tensor, int]]:
    """Cut `text`, int64 (time,), into windows, (batch, up to context), with how many positions of each to pass over.

    What is not passed over is the text, once and in order.
    """
    fresh = max(1, context // 2)
    yield text[None, :context], 0
    done = min(len(text), context)
    starts = [end - context for end in range(done + fresh, len(text) + 1, fresh)]
    rows = max(1, at_once // context)
    for first in range(0, len(starts), rows):
        yield torch.stack([text[start : start + context] for start in starts[first : first + rows]]), context - fresh
    if left := len(text) - done - fresh * len(starts):
        yield text[None, -context:], context - left
