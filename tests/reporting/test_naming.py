from __future__ import annotations

import pytest

from workbench.evaluation.tasks import BitsPerByte
from workbench.reporting.naming import spoken, view_of, with_unit


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bits_per_byte", "bits per byte"),
        ("bits_per_byte@2x", "bits per byte at 2× context"),
        ("bits_per_byte/bits_per_byte@16x", "bits per byte/bits per byte at 16× context"),
        ("bits_per_byte@exit=3", "bits per byte at exit 3"),
        ("layers@confidence=0.95", "layers at confidence 0.95"),
        ("bits_per_byte@tokens=1024000", "bits per byte after 1,024,000 tokens"),
        ("layers@confidence=1e-05", "layers at confidence 1e-05"),
        ("pass@1", "pass@1"),
        ("f1_score@exit=last", "f1 score@exit=last"),
    ],
)
def test_a_view_is_said_in_words_and_a_name_of_the_users_own_stays(name, said):
    assert spoken(name) == said


def test_every_view_the_evaluation_writes_is_understood():
    task = BitsPerByte(contexts=(2, 4), exits=(1, 12), confidences=(1e-6, 0.5, 0.999))
    understood = [view_of(name) for name in task.produces]
    expected = [
        (view.multiple, view.exit, view.confidence) for view in (*task.views, *task.views[-len(task.confidences) :])
    ]
    for found, (multiple, exit, confidence) in zip(understood, expected, strict=True):
        kind = "exit" if exit else "confidence" if confidence else "context"
        assert (found.kind, found.value) == (kind, exit or confidence or multiple)
        assert found.metric in task.metrics


def test_an_axis_says_the_unit_once():
    assert with_unit("bits_per_byte@2x", "bits per byte") == "bits per byte at 2× context"
    assert with_unit("layers@confidence=0.9", "blocks per token") == "layers at confidence 0.9 (blocks per token)"
    assert with_unit("loss", "") == with_unit("loss", None) == "loss"
