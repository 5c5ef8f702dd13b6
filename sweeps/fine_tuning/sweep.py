"""What should fine-tuning on answers learn from, and how fast?

`questions.jsonl`, beside this file, holds 240 questions (sums in words, words to swap or to repeat) with their answers;
a fifth of them is held out and asked about. Put a file of your own in its place, chats or prompts with answers; the
folder can lie anywhere. Pretraining is the laptop's, trained once per seed and shared by all arms.

Bits per byte of held-out speeches stand beside the verdict: what fine-tuning makes the model forget.
"""

from pathlib import Path

from sweeps._laptop import CHOICES, LAPTOP
from workbench.data.answers import Answers
from workbench.evaluation.tasks import BitsPerByte, Evaluation, HeldOutAnswers, SwappedWords
from workbench.sweep import Arm, Metric, Sweep, Variant
from workbench.training.recipe import AdamW, FineTuning

QUESTIONS = Answers(path=str(Path(__file__).with_name("questions.jsonl")), held_out=0.2)
TASKS = (HeldOutAnswers(answers=QUESTIONS), BitsPerByte(documents=24, bytes_per_document=3000), SwappedWords(items=128))


def tuned(rate: float = 1e-3, loss: str = "answer") -> Variant:
    """Return the laptop's model, fine-tuned on the questions."""
    stage = FineTuning.model_validate(
        {"answers": QUESTIONS, "tokens": 40_960, "batch": 4, "optimizer": AdamW(learning_rate=rate), "loss": loss}
    )
    return LAPTOP.vary(stages=(*LAPTOP.stages, stage), evaluation=Evaluation(tasks=TASKS))


SWEEP = Sweep(
    name="fine_tuning",
    question="Does fine-tuning learn more when only answers count, and how much from a gentler rate?",
    baseline=tuned(),
    baseline_name="answers count",
    arms=(
        Arm(name="everything counts", axis="stages.1.loss", configuration=tuned(loss="everything")),
        Arm(name="a third of the rate", axis="stages.1.optimizer", configuration=tuned(rate=3e-4)),
    ),
    seeds=5,
    metric=Metric(name="answer_bits_per_byte", smallest_effect=0.05),
    secondary=(Metric(name="bits_per_byte", smallest_effect=0.02), *CHOICES),
)
