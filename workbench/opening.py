"""Trained models, opened by what a user calls them: a run's id, SWEEP:ARM, SWEEP:ARM:SEED, or a folder of weights.

`open_asked` also opens a folder in the format of Hugging Face, through `transformers`: a model that can be asked and
that no architecture of ours describes.

Promises the model that was scored: the weights of its last stage of training, with the stages after training applied,
and the tokenizer it was trained with. Refuses a name that fits nothing or several runs, a run that did not finish, and
weights that are not here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from architectures.architecture import Architecture
from architectures.transformer import Transformer
from workbench import session
from workbench.configuration import Configuration
from workbench.data.answers import Answers
from workbench.data.prepared import Data, known_tokenizer, prepare
from workbench.data.pretrained import beginning
from workbench.data.tokenizer import Tokenizer
from workbench.data.vocabularies import HuggingFaceTokenizer
from workbench.errors import StoreError, SweepError
from workbench.evaluation.foreign import Foreign, is_foreign, load_foreign
from workbench.planning import model_key
from workbench.records import Numerics, Record, Status
from workbench.revisiting import load_scored
from workbench.store import Store
from workbench.training.checkpoints import load_final

SHORTEST = 4  # letters of a run's id that may be typed for all of it


@dataclass(frozen=True)
class Opened:
    """A trained model.

    Attributes:
        told: What it is, for people.
        architecture: What built it.
        model: As it was scored; on the CPU.
        tokenizer: The one it was trained with.
    """

    told: str
    architecture: Architecture
    model: Transformer
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Askable:
    """A model that can be evaluated, ours or of Hugging Face.

    Attributes:
        told: What it is, for people.
        model: In evaluation mode, on the CPU.
        tokenizer: The one it was trained with.
        context: The longest sequence that it was made for, in tokens.
        data: What it was trained on; None where that is not known.
        weights: The folder of its weights.
        variant: What results call it: its arm, or the name of its folder.
        seed: Of the run.
        answers: Examples that it was fine-tuned on.
    """

    told: str
    model: Transformer | Foreign
    tokenizer: Tokenizer
    context: int
    data: Data | None
    weights: Path
    variant: str
    seed: int = 0
    answers: tuple[Answers, ...] = ()


@dataclass(frozen=True)
class _Found:
    told: str
    folder: Path
    configuration: Configuration | None = None
    variant: str = ""
    seed: int = 0


def open_model(name: str, store: Store, *, seed: int | None = None, corpus: str | None = None) -> Opened:
    """Find and load a trained model.

    Args:
        name: A run's id or its beginning, SWEEP:ARM, SWEEP:ARM:SEED, or a folder that holds `final.safetensors`.
        store: The runtime folder.
        seed: With SWEEP:ARM, which of its seeds; the first unless told.
        corpus: With SWEEP:ARM, what it was trained on instead of the sweep's corpus.

    Raises:
        SweepError: if the name fits nothing, or an arm that has no model of ours.
        StoreError: if weights or tokenizer are not here or damaged, or the run did not finish.
    """
    found = _find(name, store, seed, corpus)
    try:
        described: dict[str, Any] = json.loads((found.folder / "final.json").read_text())
    except (OSError, ValueError):
        raise StoreError(
            f"{found.told} is not trained yet, or was trained elsewhere",
            where=found.folder,
            expected="final.json and final.safetensors",
            got="none that can be read",
            fix="train it here, or name it by its run's id or the folder of its weights",
        ) from None
    if described.get("status") != Status.FINISHED:
        raise StoreError(f"{found.told} did not train to its end", where=found.folder, got=described.get("reason"))
    architecture = found.configuration.architecture if found.configuration else _architecture(described, found.folder)
    tokenizer = _tokenizer(described, found, store)
    if tokenizer.vocabulary != architecture.vocabulary:
        raise StoreError(
            f"the tokenizer that is here is not that of {found.told}",
            where=found.folder,
            expected=f"{architecture.vocabulary:,} tokens, as many as the model has",
            got=f"{tokenizer.vocabulary:,}",
        )
    model = architecture.build(spelling=tokenizer.spelling if architecture.embedding.reads_bytes else None)
    if found.configuration is not None:
        load_scored(found.configuration, found.folder, model)
    else:
        load_final(found.folder, model)
    for stage in found.configuration.after if found.configuration else ():
        stage.apply(model)
    return Opened(found.told, architecture, model.eval(), tokenizer)


def open_asked(name: str, store: Store, *, seed: int | None = None, corpus: str | None = None) -> Askable:
    """Find and load a model to be evaluated: as `open_model` does, or a folder in the format of Hugging Face.

    Raises:
        SweepError: if the name fits nothing.
        StoreError: if weights or tokenizer are not here or damaged.
        DataError: if the tokenizer in a folder changes text.
        MissingExtra: if transformers is not installed, for such a folder.
    """
    folder = Path(name)
    if is_foreign(folder) and not (folder / "final.json").is_file():
        model = load_foreign(folder)
        tokenizer = HuggingFaceTokenizer(path=str(folder), vocabulary=model.vocabulary).train([])
        tokenizer.begin_of_text = beginning(str(folder))
        place = folder.absolute()
        return Askable(f"the model in {folder}", model, tokenizer, model.context, None, place, place.name)
    opened = open_model(name, store, seed=seed, corpus=corpus)
    found = _find(name, store, seed, corpus)
    data, answers = (found.configuration.data, found.configuration.answers) if found.configuration else (None, ())
    context, variant = opened.architecture.context, found.variant or found.folder.name
    folder = found.folder.absolute()
    return Askable(opened.told, opened.model, opened.tokenizer, context, data, folder, variant, found.seed, answers)


def _find(name: str, store: Store, seed: int | None, corpus: str | None) -> _Found:
    path = Path(name)
    if path.name == "final.safetensors":
        path = path.parent
    if (path / "final.json").is_file():
        return _Found(f"the model in {path}", path.absolute())
    sweep, separator, arm = name.rpartition(":")
    if separator:
        if arm.isdecimal() and ":" in sweep:
            seed, (sweep, _, arm) = int(arm), sweep.rpartition(":")
        return _find_arm(sweep, arm, seed, corpus, store)
    return _find_run(name, store)


def _find_arm(sweep: str, arm: str, seed: int | None, corpus: str | None, store: Store) -> _Found:
    opened = session.open_session(sweep, store.home, corpus)
    trials = {trial.seed: trial for trial in opened.plan.trials if trial.arm == arm}
    if not trials:
        names = ", ".join(one.name for one in opened.plan.arms)
        raise SweepError("the sweep has no such arm", where=sweep, expected=names, got=arm)
    configuration = opened.plan.arm(arm).configuration
    if not isinstance(configuration, Configuration):
        raise SweepError(
            "an arm that is a command has no model the workbench knows", where=arm, got="a trainer of your own"
        )
    chosen = min(trials) if seed is None else seed
    if chosen not in trials:
        raise SweepError(
            "the arm has no such seed", where=f"{sweep}:{arm}", expected=", ".join(map(str, trials)), got=chosen
        )
    folder = store.model_folder(trials[chosen].model_key)
    return _Found(f"{sweep}:{arm}, seed {chosen}", folder, configuration, arm, chosen)


def _find_run(name: str, store: Store) -> _Found:
    begun = sorted(path.parent.name for path in store.home.glob("runs/*/record.json"))
    fitting = [run for run in begun if run.startswith(name)] if len(name) >= SHORTEST else []
    record = store.record(fitting[0]) if len(fitting) == 1 else None
    if record is None:
        raise SweepError(
            "the name fits several runs" if fitting else "there is no such run",
            where=store.home,
            expected=f"a run's id or its first {SHORTEST} letters or more, SWEEP:ARM, or a folder of trained weights",
            got=", ".join(fitting) or name,
            fix="workbench dashboard shows the ids; --home FOLDER names another runtime folder",
        )
    told = f"run {record.run_id[:12]} ({record.arm}, seed {record.seed})"
    if record.source != "workbench" or record.numerics is None:
        raise SweepError(f"{told} has no model the workbench knows", got=f"a record made by: {record.source}")
    configuration = _configuration(record, told)
    folder = store.model_folder(_model_key(record, configuration, record.numerics))
    return _Found(told, folder, configuration, record.arm, record.seed)


def _model_key(record: Record, configuration: Configuration, numerics: Numerics) -> str:
    lineage = tuple(str(entry["model_id"]) for entry in record.lineage)
    return model_key(configuration.trained_lineage(lineage)[-1], numerics)


def _configuration(record: Record, told: str) -> Configuration:
    try:
        return Configuration.model_validate(record.spec)
    except ValidationError as error:
        raise _unreadable(told, error, "name it as SWEEP:ARM, so that components of your own are found") from None


def _architecture(described: dict[str, Any], folder: Path) -> Architecture:
    try:
        return Architecture.model_validate(described.get("architecture"))
    except ValidationError as error:
        raise _unreadable(f"the model in {folder}", error, "name it by its run, or as SWEEP:ARM") from None


def _unreadable(told: str, error: ValidationError, fix: str) -> SweepError:
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return SweepError(f"what {told} is made of cannot be built here", where=place, got=problem["msg"], fix=fix)


def _tokenizer(described: dict[str, Any], found: _Found, store: Store) -> Tokenizer:
    key = described.get("data")
    for cache in (store.cache, found.folder.parent.parent / "cache"):
        if key is not None and (known := known_tokenizer(key, cache)) is not None:
            return known
    if found.configuration is not None:
        prepared = prepare(found.configuration.data, store.cache)
        if key is not None and prepared.key != key:
            raise StoreError(
                f"the tokenizer of {found.told} is not here, and from its data comes another",
                where=store.cache,
                expected=f"prepared data {key}",
                got=f"prepared data {prepared.key}",
                fix="name the runtime folder in which it was trained: --home FOLDER",
            )
        return prepared.tokenizer
    raise StoreError(
        "the tokenizer of the model is not here",
        where=store.cache,
        expected=f"prepared data {key}",
        got="none of that key",
        fix="name the runtime folder in which it was trained: --home FOLDER",
    )
