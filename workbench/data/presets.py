"""Corpora by name: the datasets of the hub that small language models are trained on, and two published mixtures.

Names, configurations and fields are those of the datasets' pages; sizes are of the text, roughly. None of them pins a
revision: a plan holds the commit it found, and `revision` asks for one. Limits (`documents`, `bytes`) belong to who
uses them: `preset("fineweb-edu").model_copy(update={"bytes": 1_000_000_000})`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from workbench.data.corpora import Corpus, Files, Hub, Mixture, Part, Speeches
from workbench.errors import DataError

PREFIX = "hub:"


class Preset(NamedTuple):
    """A corpus with a name, and what to know before using it."""

    corpus: Hub | Mixture
    about: str


OPEN_WEB_TEXT = Hub(name="Skylion007/openwebtext")
SIMPLE_WIKIPEDIA = Hub(name="wikimedia/wikipedia", configuration="20231101.simple")
ENGLISH_WIKIPEDIA = Hub(name="wikimedia/wikipedia", configuration="20231101.en")
BABY_LM = Hub(name="Sree1994/babylm_100M")
TINY_STORIES = Hub(name="roneneldan/TinyStories")
WIKI_TEXT = Hub(name="Salesforce/wikitext", configuration="wikitext-103-raw-v1")
FINEWEB_EDU = Hub(name="HuggingFaceFW/fineweb-edu", configuration="sample-10BT")
# TinyLlama leaves out SlimPajama's own GitHub part, as StarCoder's data holds that code (arXiv:2401.02385, section 2.1)
SLIM_PAJAMA = Hub(name="cerebras/SlimPajama-627B", leave_out=(("meta.redpajama_set_name", "RedPajamaGithub"),))
STAR_CODER = Hub(name="bigcode/starcoderdata", field="content")
PYTHON_CODE = Hub(name="jtatman/python-code-dataset-500k", template="{instruction}\n{output}")
OPEN_HERMES = Hub(name="teknium/OpenHermes-2.5", field="conversations")

# STLM's mixture, put one after the other without weights
STLM = Mixture(
    sources=(
        Part(name="simple-wikipedia", corpus=SIMPLE_WIKIPEDIA),
        Part(name="python-code", corpus=PYTHON_CODE),
        Part(name="openhermes", corpus=OPEN_HERMES),
        Part(name="tinystories", corpus=TINY_STORIES),
    )
)
# TinyLlama's, read in the shares of TINY_LLAMA_WEIGHTS: Data(corpus=TINY_LLAMA, order=Weighted(weights=...))
TINY_LLAMA = Mixture(sources=(Part(name="slimpajama", corpus=SLIM_PAJAMA), Part(name="starcoder", corpus=STAR_CODER)))
TINY_LLAMA_WEIGHTS = {"slimpajama": 0.693584, "starcoder": 0.306416}

PRESETS = {
    "openwebtext": Preset(OPEN_WEB_TEXT, "OpenWebText, pages linked on Reddit: 8 M documents, 38 GB, CC0"),
    "simple-wikipedia": Preset(SIMPLE_WIKIPEDIA, "Simple English Wikipedia: 240,000 articles, 0.2 GB, CC BY-SA 3.0"),
    "english-wikipedia": Preset(ENGLISH_WIKIPEDIA, "English Wikipedia: 6.4 M articles, 20 GB, CC BY-SA 3.0"),
    "babylm": Preset(BABY_LM, "BabyLM 100M, what a child may hear and read: 0.6 GB, licences of its sources"),
    "tinystories": Preset(TINY_STORIES, "TinyStories, by GPT-3.5 and GPT-4: 2.1 M stories, 2 GB, CDLA-Sharing 1.0"),
    "wikitext": Preset(WIKI_TEXT, "WikiText-103, raw, a document a paragraph: 0.5 GB, CC BY-SA"),
    "fineweb-edu": Preset(FINEWEB_EDU, "FineWeb-Edu, sample of 10 B tokens: 9.7 M pages, 45 GB, ODC-By 1.0"),
    "slimpajama": Preset(SLIM_PAJAMA, "SlimPajama without its code: more than 2 TB, licences of its sources"),
    "starcoder": Preset(STAR_CODER, "StarCoder's code, after consent on its page: 780 GB, licences of its sources"),
    "python-code": Preset(PYTHON_CODE, "Python exercises with answers: 560,000 pairs, 0.9 GB, no licence stated"),
    "openhermes": Preset(OPEN_HERMES, "OpenHermes 2.5, conversations with GPT-4: 1 M, 1.6 GB, licences of its sources"),
    "stlm": Preset(STLM, "STLM's mixture: simple-wikipedia, python-code, openhermes and tinystories in a row"),
    "tinyllama": Preset(TINY_LLAMA, "SlimPajama and StarCoder; in TinyLlama's shares with an order of weights"),
}


def preset(name: str) -> Hub | Mixture:
    """Return a corpus by its name.

    Raises:
        DataError: if there is none of this name.
    """
    known = name.replace("_", "-")
    if known not in PRESETS:
        raise DataError(
            "there is no such preset of a corpus",
            where=f"{PREFIX}{name}",
            expected="\n" + "\n".join(f"    {one:<18}{held.about}" for one, held in PRESETS.items()),
            got=name,
            fix="name one of these, or a dataset of the Hugging Face hub: hub:OWNER/NAME",
        )
    return PRESETS[known].corpus


def told_corpus(told: str) -> Corpus:
    """Return the corpus that a word of the command line names.

    "sotu" is the embedded one; "hub:tinystories" a preset; "hub:owner/name", with ":configuration" where it has
    several, a dataset of the hub; anything else the path of a file or folder, or a glob.

    Raises:
        DataError: if it names a preset that does not exist.
    """
    if not told.startswith(PREFIX):
        return (
            Speeches()
            if told == Speeches().kind and not Path(told).exists()
            else Files(path=str(Path(told).absolute()))
        )
    name = told.removeprefix(PREFIX)
    if "/" not in name and "." not in name:
        return preset(name)
    name, _, configuration = name.partition(":")
    return Hub(name=str(Path(name).absolute()) if Path(name).is_dir() else name, configuration=configuration or None)
