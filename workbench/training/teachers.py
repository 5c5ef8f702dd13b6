"""Teachers: who a student learns from beside the text, what identifies them, and how they are asked.

Three kinds: a model of ours that is trained first on the same data (`Grown`), the folder of one that has been trained
(`TrainedModel`), and any causal language model that `transformers` loads from a folder (`HuggingFace`). A teacher's
path is no part of identity, its weights are. Refuses a teacher that does not use the student's tokenizer token by
token, one without logits over the vocabulary, code from a model's folder, and weights in pickled files. One whose own
texts began with a token of their own, as Llama's, reads every document after that, and not after an end_of_text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from architectures.accounting import flops_per_token, parameters
from architectures.architecture import Architecture
from architectures.transformer import Batch
from workbench.data.prepared import Prepared
from workbench.data.pretrained import pieces_at
from workbench.data.tokenizer import leading
from workbench.errors import DataError, MissingExtra
from workbench.identity import Spec, digest, setting
from workbench.records import Numerics
from workbench.training.checkpoints import load_final
from workbench.training.optimizers import AdamW, Optimizer
from workbench.training.schedules import Cosine, Schedule

if TYPE_CHECKING:
    from workbench.data.tokenizer import Tokenizer

CONTEXT = 1024


class Grown(Spec):
    """A model that is trained first, on the student's data, once for all students and seeds.

    Every student then learns from the same teacher, so that a verdict is one on this teacher; to generalise over
    teachers, compare several seeds of it as arms.

    Attributes:
        architecture: With the student's vocabulary.
        tokens: Budget.
        batch: Sequences per step.
        optimizer: As of a stage.
        schedule: As of a stage.
        clip: As of a stage.
        seed: Of initialisation, data order and dropout.
    """

    kind: Literal["grown"] = "grown"
    architecture: Architecture
    tokens: int = setting(default=204_800, effect="training", gt=0)
    batch: int = setting(default=8, effect="training", gt=0)
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    clip: float = setting(default=1.0, effect="training", gt=0)
    seed: int = setting(default=0, effect="training")


class TrainedModel(Spec):
    """A model that was trained before: the folder with its final.json and final.safetensors.

    It must have been trained on the same prepared data as the student, and with it the same tokenizer; so it has not
    seen the held-out documents either.
    """

    kind: Literal["trained"] = "trained"
    path: str = setting(effect="efficiency", min_length=1)

    def source_hash(self) -> str:
        """Return the hash of architecture and weights, as final.json states them; loading checks the weights."""
        told = _described(Path(self.path))
        return digest("trained model", told["architecture"], told["data"], told["sha256"])


class HuggingFace(Spec):
    """A causal language model in the format of Hugging Face: config.json, tokenizer.json and *.safetensors.

    Whether it has seen the documents that the student is examined on, nobody here can know.

    Attributes:
        path: Its folder.
        context: Tokens it reads at once, at most; fewer where its configuration says that it takes no more.
    """

    kind: Literal["hugging_face"] = "hugging_face"
    path: str = setting(effect="efficiency", min_length=1)
    context: int = setting(default=CONTEXT, effect="training", gt=1)

    def source_hash(self) -> str:
        """Return the hash of configuration, tokenizer and weights."""
        files = _files(Path(self.path))
        return digest("hugging face", [[path.name, _hash_of(path)] for path in files])


Teacher = Annotated[Grown | TrainedModel | HuggingFace, Field(discriminator="kind")]


@dataclass(frozen=True)
class Speaker:
    """A teacher that is loaded.

    Attributes:
        logits: From tokens, int64 (batch, time) on its device, and how many positions of each sequence are of no
            interest, to the logits of the others, (batch, rest of time, vocabulary).
        context: Tokens it reads at once.
    """

    logits: Callable[[Tensor, int], Tensor]
    context: int


def load(teacher: Teacher, prepared: Prepared, numerics: Numerics, grown: Path | None = None) -> Speaker:
    """Load a teacher onto the device of `numerics`.

    Args:
        teacher: Who.
        prepared: The student's data.
        numerics: The student's numerics; a teacher of theirs is asked in the same precision.
        grown: Folder of the trained model; for a `Grown` teacher.

    Raises:
        DataError: if the teacher cannot be read or has another tokenizer.
        MissingExtra: if it takes `transformers` and that is not installed.
    """
    if isinstance(teacher, HuggingFace):
        return _load_hugging_face(teacher, prepared, numerics)
    folder = Path(teacher.path) if isinstance(teacher, TrainedModel) else grown
    assert folder is not None  # noqa: S101 - documented
    told = _described(folder)
    if told["data"] != prepared.key:
        raise DataError(
            "a teacher was trained on other data, and so has another tokenizer",
            where=folder,
            expected=f"data {prepared.key}",
            got=f"data {told['data']}",
            fix="train the teacher on the student's corpus, or have it grown: Grown(architecture=..., tokens=...)",
        )
    architecture = _architecture(told, folder)
    model = architecture.build(backend=numerics.attention)
    load_final(folder, model)
    model.eval().requires_grad_(False).to(numerics.device)

    def logits(tokens: Tensor, skipped: int) -> Tensor:
        return model.logits(model(Batch(tokens, tokens, torch.empty(0))).hidden[:, skipped:])

    return Speaker(logits, architecture.context)


def refuse_unusable(teacher: Teacher) -> None:
    """Refuse, before anything is trained, a teacher that is not there or has no logits.

    Raises:
        DataError: saying which.
    """
    if isinstance(teacher, HuggingFace):
        _files(Path(teacher.path))
        return
    folder = Path(teacher.path) if isinstance(teacher, TrainedModel) else None
    architecture = teacher.architecture if isinstance(teacher, Grown) else _architecture_in(Path(teacher.path))
    if architecture.embedding.reads_bytes:
        raise DataError(
            "a teacher has no logits over the vocabulary",
            where=folder or "teacher",
            expected="an embedding with logits, such as table",
            got=f"embedding {architecture.embedding.kind}",
        )


def size_of(teacher: Teacher) -> dict[str, Any]:
    """Return what a plan shows of a teacher: kind, parameters, and FLOPs of asking it about one token.

    For a teacher that is trained first, `training_flops` is what that costs in all; `source` is the hash of one that
    is there already.
    """
    source = None if isinstance(teacher, Grown) else teacher.source_hash()
    if isinstance(teacher, HuggingFace):
        count = _count(Path(teacher.path))
        shown = {"parameters": count, "flops_per_token": 2.0 * count, "training_flops": 0.0}
        return {"kind": teacher.kind, **shown, "source": source}
    architecture = teacher.architecture if isinstance(teacher, Grown) else _architecture_in(Path(teacher.path))
    flops = flops_per_token(architecture)
    return {
        "kind": teacher.kind,
        "parameters": parameters(architecture)["total"],
        "flops_per_token": flops.forward,
        "training_flops": flops.training * teacher.tokens if isinstance(teacher, Grown) else 0.0,
        "source": source,
    }


# --- models of ours


def _described(folder: Path) -> dict[str, Any]:
    """Read final.json.

    Raises:
        DataError: if there is no such trained model, or it does not say what it is.
    """
    try:
        told: dict[str, Any] = json.loads((folder / "final.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            "there is no such trained model",
            where=folder,
            expected="a folder with final.json and final.safetensors, as below models/ of a runtime folder",
            got=getattr(error, "strerror", None) or str(error),
        ) from None
    if missing := [name for name in ("architecture", "data", "sha256") if not told.get(name)]:
        raise DataError(
            "a trained model does not say what it is",
            where=folder / "final.json",
            expected="architecture, data and sha256",
            got=f"no {', '.join(missing)}",
            fix="train it again with this version",
        )
    return told


def _architecture_in(folder: Path) -> Architecture:
    return _architecture(_described(folder), folder)


def _architecture(told: dict[str, Any], folder: Path) -> Architecture:
    try:
        return Architecture.model_validate(told["architecture"])
    except ValidationError as error:
        raise DataError(
            "a trained model cannot be rebuilt",
            where=folder / "final.json",
            expected="an architecture of components that are known here",
            got=str(error.errors()[0]["msg"]),
            fix="import the component of yours that it uses in the sweep file",
        ) from None


# --- models in the format of Hugging Face


def _files(folder: Path) -> list[Path]:
    """Return configuration, tokenizer and weights.

    Raises:
        DataError: if one of them is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    named = [folder / "config.json", folder / "tokenizer.json"]
    missing = [path.name for path in named if not path.is_file()] + ([] if weights else ["*.safetensors"])
    if missing:
        raise DataError(
            "a folder holds no teacher in the format of Hugging Face",
            where=folder,
            expected="config.json, tokenizer.json and *.safetensors",
            got="no " + ", ".join(missing) if folder.is_dir() else "no such folder",
            fix="a teacher without tokenizer.json needs it beside its weights, to compare the vocabularies",
        )
    return [*named, *weights]


def _hash_of(path: Path) -> str:
    found = path.stat()
    return _hash_of_content(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash_of_content(path: Path, size: int, changed: int) -> str:
    """Hash a file that has this size and was changed then: weights are large, and a plan hashes them many times."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _count(folder: Path) -> int:
    from safetensors import safe_open

    count = 0
    for path in _files(folder)[2:]:
        with safe_open(path, "pt") as held:
            shapes = [held.get_slice(name).get_shape() for name in held.keys()]  # noqa: SIM118 - no mapping
        count += sum(torch.Size(shape).numel() for shape in shapes)
    return count


def _load_hugging_face(teacher: HuggingFace, prepared: Prepared, numerics: Numerics) -> Speaker:
    folder = Path(teacher.path)
    _refuse_other_vocabulary(_files(folder)[1], prepared.tokenizer)
    try:
        from transformers import AutoModelForCausalLM
    except ModuleNotFoundError:
        raise MissingExtra("transformers", "eval") from None
    dtype = torch.bfloat16 if numerics.precision == "bfloat16" else torch.float32
    try:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise DataError(
            "transformers cannot load a teacher",
            where=folder,
            expected="a causal language model that needs no code of its own",
            got=str(error).strip().splitlines()[0],
        ) from None
    model.eval().requires_grad_(False).to(numerics.device)
    config: Any = model.config
    outputs, vocabulary = int(config.get_text_config().vocab_size), prepared.tokenizer.vocabulary
    if outputs < vocabulary:
        raise DataError(
            "a teacher has fewer tokens than the student",
            where=folder,
            expected=f"at least {vocabulary} outputs",
            got=outputs,
        )
    reach = getattr(config.get_text_config(), "max_position_embeddings", None) or teacher.context
    tokenizer = _files(folder)[1]
    begins, end = leading(tokenizer.read_text(encoding="utf-8"), tokenizer), prepared.tokenizer.end_of_text

    def logits(tokens: Tensor, skipped: int) -> Tensor:
        if begins is not None:  # with which its own texts began
            tokens = torch.cat([tokens[:, :1].masked_fill(tokens[:, :1] == end, begins), tokens[:, 1:]], dim=1)
        found: Tensor = model(input_ids=tokens, use_cache=False).logits
        return found[:, skipped:, :vocabulary]  # what lies beyond stands for no token of ours

    return Speaker(logits, min(teacher.context, int(reach)))


def _refuse_other_vocabulary(path: Path, tokenizer: Tokenizer) -> None:
    """Compare vocabularies token by token; a teacher may have further tokens, which the student never sees.

    Raises:
        DataError: naming the first id that stands for something else.
    """
    theirs = {number: piece for piece, number in pieces_at(str(path), tokenizer.end_of_text).items()}
    differing = [(number, piece) for piece, number in tokenizer.pieces.items() if theirs.get(number) != piece]
    if not differing:
        return
    number, piece = min(differing)
    raise DataError(
        "a teacher uses another tokenizer than the student",
        where=path,
        expected=f"{piece!r} as token {number}",
        got=f"{theirs[number]!r}" if number in theirs else "no such token",
        fix=f"{len(differing):,} of {len(tokenizer.pieces):,} tokens differ: train a teacher of your own on the "
        "student's corpus, Grown(architecture=..., tokens=...)",
    )
