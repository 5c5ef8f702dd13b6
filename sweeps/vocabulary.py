"""How many tokens should a small model have, and is a vocabulary worth its embedding at all?

The baseline's 2,048 byte pairs of the training text, against fewer, more, and the 256 bytes alone. STLM and LokiLM fix
one size by hand (50,257 of GPT-2, arXiv:2405.14159; 32,000 pruned of cl100k_base, arXiv:2407.07370). Losses per token
cannot be compared between vocabularies, bits per byte can. A context is as many tokens in every arm, and so fewer bytes
where tokens are short: that is part of what a vocabulary is, as are the parameters of its embedding.
"""

from sweeps._laptop import BITS, LAPTOP, NOISE
from workbench.data.tokenizer import BytePairs
from workbench.data.vocabularies import Bytes, TokenizerChoice
from workbench.sweep import Arm, Sweep

AXIS = ("data.tokenizer", "architecture.vocabulary")


def arm(name: str, tokenizer: TokenizerChoice) -> Arm:
    """Return an arm with another vocabulary, and the embedding it needs."""
    changed = LAPTOP.vary(data__tokenizer=tokenizer, architecture__vocabulary=tokenizer.vocabulary)
    return Arm(name=name, axis=AXIS, configuration=changed)


# At the paper's size: architecture=preset("lokilm-1.4b").architecture, its corpus and tokens, and as an arm
# arm("cl100k, pruned", Pruned(vocabulary=32_000)).
SWEEP = Sweep(
    question="How many tokens should the vocabulary of a small model have?",
    baseline=LAPTOP,
    baseline_name="2,048 byte pairs",
    arms=(
        arm("bytes", Bytes()),
        arm("512 byte pairs", BytePairs(vocabulary=512)),
        arm("8,192 byte pairs", BytePairs(vocabulary=8192)),
    ),
    seeds=5,
    noise=NOISE,
    metric=BITS,
)
