"""The low-rank table: the token model whose table is the product of its two matrices."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from architectures.accounting import parameters
from architectures.embeddings import Factorised, Table
from architectures.presets import tiny
from architectures.specimens import host, moved, random_batch
from architectures.testing import check_component


@pytest.mark.parametrize("tied", [True, False])
def test_a_factorised_table_computes_what_the_product_of_its_matrices_would(tied):
    factorised = moved(host().vary(embedding=Factorised(rank=4, tied=tied)))
    table = moved(host().vary(embedding=Table(tied=tied)))
    weights = dict(factorised.named_parameters())
    with torch.no_grad():
        for name, parameter in table.named_parameters():
            if name == "embedding.weight":
                parameter.copy_(weights[name] @ weights["embedding.up.weight"].T)
            elif name == "head.weight":
                parameter.copy_(weights[name] @ weights["head.down.weight"])
            else:
                parameter.copy_(weights[name])
        batch = random_batch(host())
        expected = table.logits(table(batch).hidden)
        torch.testing.assert_close(factorised.logits(factorised(batch).hidden), expected, rtol=1e-4, atol=1e-4)


def test_an_untied_factorised_table_keeps_the_contract():
    check_component(Factorised(rank=3, tied=False))


def test_it_saves_what_the_paper_says():
    """V x H becomes V x E + E x H."""
    counts = parameters(tiny().vary(embedding=Factorised(rank=32)))
    assert (counts["embedding"], counts["head"]) == (2048 * 32 + 32 * 128, 0)
    counts = parameters(tiny().vary(embedding=Factorised(rank=32, tied=False)))
    assert (counts["embedding"], counts["head"]) == (2048 * 32 + 32 * 128, 2048 * 32 + 32 * 128)


def test_a_rank_that_is_none_is_refused():
    with pytest.raises(ValidationError, match=r"embedding\.rank: expected below width 128, got 128"):
        tiny().vary(embedding=Factorised(rank=128))
