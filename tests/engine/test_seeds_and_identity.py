from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from workbench.identity import Spec, canonical, digest, leaves, setting
from workbench.seeds import generator, seed_for, standard_normal


class Nested(Spec):
    base: float = 1.0
    batch: int = setting(default=4, effect="efficiency")


class Declared(Spec):
    width: int
    nested: Nested = Nested()
    added_later: int = Field(7, json_schema_extra={"neutral": 0})


@given(st.integers(0, 2**40), st.text(max_size=20), st.text(max_size=20))
def test_streams_differ_by_name_and_by_seed(seed: int, one: str, other: str) -> None:
    assert (seed_for(seed, one) == seed_for(seed, other)) == (one == other)
    assert seed_for(seed, one) != seed_for(seed + 1, one)


def test_a_stream_does_not_feel_what_others_draw() -> None:
    alone = standard_normal(3, "blocks.0.attention.query.weight", (4, 5))
    generator(3, "something else").standard_normal(1000)
    np.testing.assert_array_equal(standard_normal(3, "blocks.0.attention.query.weight", (4, 5)), alone)


def test_a_stream_is_standard_normal() -> None:
    drawn = standard_normal(0, "x", (100_000,))
    assert drawn.dtype == np.float32
    assert abs(drawn.mean()) < 0.015
    assert abs(drawn.std() - 1) < 0.01


def test_seeds_and_hashes_are_the_same_in_another_process() -> None:
    code = (
        "from workbench.seeds import seed_for; from workbench.identity import digest;"
        "print(seed_for(5, 'data'), digest({'b': 1, 'a': [1.5, None]}))"
    )
    for hash_seed in ("0", "77"):
        told = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert told.stdout.split() == [str(seed_for(5, "data")), digest({"a": [1.5, None], "b": 1})]


def test_efficiency_fields_are_no_part_of_identity() -> None:
    assert digest(Declared(width=1, nested=Nested(batch=4))) == digest(Declared(width=1, nested=Nested(batch=8)))
    assert digest(Declared(width=1, nested=Nested(base=2.0))) != digest(Declared(width=1))


def test_a_field_at_its_neutral_value_leaves_the_hash_as_it_was_before_the_field_existed() -> None:
    assert canonical(Declared(width=1, added_later=0)) == {"width": 1, "nested": {"base": 1.0}}
    assert digest(Declared(width=1, added_later=0)) != digest(Declared(width=1))


def test_a_component_at_its_neutral_value_is_left_out_too() -> None:
    class Grown(Spec):
        width: int
        choice: Nested = Field(Nested(), json_schema_extra={"neutral": {"base": 1.0}})

    assert canonical(Grown(width=1)) == {"width": 1}
    assert canonical(Grown(width=1, choice=Nested(base=2.0))) == {"width": 1, "choice": {"base": 2.0}}


def test_leaves_name_every_resolved_field() -> None:
    assert leaves(Declared(width=3)) == {"width": 3, "nested.base": 1.0, "nested.batch": 4, "added_later": 7}
    assert leaves({"a": [1, {"b": 2}], "empty": {}}) == {"a.0": 1, "a.1.b": 2, "empty": {}}


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="widht"):
        Declared(widht=1)  # type: ignore[call-arg]
