"""FlexAttention and flash-attn: what they refuse, how they are lowered and, on a GPU, how far they err."""

from __future__ import annotations

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from architectures import kernels
from architectures.backends import BACKENDS, attend, objections
from architectures.masks import Case, LinearBias, Mask, NoBias, Places
from architectures.positions import alibi_slopes

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
FLASH = Case(Mask(), NoBias(), "cuda", torch.bfloat16, 64)
BIASES = [NoBias(), LinearBias(alibi_slopes(4))]


def inputs(heads: int, key_value_heads: int, time: int, width: int) -> list[torch.Tensor]:
    generator = np.random.default_rng(0)
    shapes = [(2, heads, time, width)] + [(2, key_value_heads, time, width)] * 2
    return [torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)) for shape in shapes]


def packed(time: int) -> Places:
    steps = torch.arange(time).expand(2, time)
    documents, positions = steps // (time // 3 + 1), steps % (time // 3 + 1)
    return Places(positions, positions, documents, documents)


@pytest.mark.parametrize(
    ("mask", "bias", "key_value_heads", "documents"),
    [
        (Mask(), BIASES[0], 4, False),
        (Mask(), BIASES[1], 2, False),
        (Mask(window=5), BIASES[0], 2, True),
        (Mask(causal=False), BIASES[1], 4, True),
    ],
    ids=repr,
)
def test_flex_equals_the_reference_forward(bias, key_value_heads, mask, documents):
    q, k, v = inputs(4, key_value_heads, 20, 16)
    mixed = []
    with torch.no_grad():
        for backend in ("reference", "flex"):
            places = packed(20) if documents else Places()
            mixed.append(attend(q, k, v, mask=mask, bias=bias, places=places, backend=backend))
    torch.testing.assert_close(mixed[1], mixed[0], atol=1e-5, rtol=1e-5)


def test_flex_answers_the_last_queries_alone():
    q, k, v = inputs(4, 4, 20, 16)
    with torch.no_grad():
        whole = attend(q, k, v, mask=Mask(window=6), bias=BIASES[1], backend="reference")
        last = attend(q[:, :, -1:], k, v, mask=Mask(window=6), bias=BIASES[1], backend="flex")
    torch.testing.assert_close(last, whole[:, :, -1:], atol=1e-5, rtol=1e-5)


def test_flex_lowers_a_plain_mask_once():
    kernels._plain_mods.cache_clear()
    q, k, v = inputs(4, 4, 20, 16)
    with torch.no_grad():
        for window in (None, 20, 99):  # windows that hide nothing are no windows
            attend(q, k, v, mask=Mask(window=window), bias=NoBias(), backend="flex")
    assert kernels._plain_mods.cache_info().misses == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "has no backward pass on a CPU"),
        ({"device": "mps"}, "needs a CUDA device, got mps"),
        ({"dropout": True}, "cannot drop attention probabilities"),
        ({"head_width": 8}, "heads at least 16 wide, got 8"),
        ({"device": "cpu", "training": False}, None),
        ({"documents": True, "plain": False}, None),
    ],
)
def test_flex_says_what_it_cannot_do(changes, reason):
    objection = kernels.objection_of_flex(dataclasses.replace(FLASH, **changes))
    assert objection is None if reason is None else reason in objection


def test_training_by_flex_on_a_cpu_is_refused():
    q, k, v = inputs(4, 4, 20, 16)
    with pytest.raises(ValueError, match="got 'flex': FlexAttention has no backward pass on a CPU"):
        attend(q.requires_grad_(), k, v, mask=Mask(), bias=NoBias(), backend="flex")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cpu"}, "needs a CUDA device, got cpu"),
        ({"dtype": torch.float32}, "needs bfloat16 or float16, got float32"),
        ({"head_width": 320}, "heads at most 256 wide, got 320"),
        ({"plain": False}, "needs plain positions"),
        ({"documents": True}, "document masks"),
        ({"dropout": True, "bias": BIASES[1], "mask": Mask(window=3)}, None),
    ],
)
def test_flash_says_what_it_cannot_do(monkeypatch, changes, reason):
    monkeypatch.setattr(kernels, "_flash", lambda: SimpleNamespace(flash_attn_func=None))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    objection = kernels.objection_of_flash(dataclasses.replace(FLASH, **changes))
    assert objection is None if reason is None else reason in objection


def test_flash_says_that_it_is_not_installed_or_broken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for broken, reason in (
        (ModuleNotFoundError("no flash", name="flash_attn"), "flash-attn is not installed; pip install"),
        (ModuleNotFoundError("no einops", name="einops"), "flash-attn cannot be imported: no einops"),
        (ImportError("undefined symbol"), "flash-attn cannot be imported: undefined symbol"),
    ):

        def fail(name, error=broken):
            raise error

        kernels._flash.cache_clear()
        monkeypatch.setattr(kernels.importlib, "import_module", fail)
        assert reason in kernels.objection_of_flash(FLASH)
    kernels._flash.cache_clear()


def test_no_backend_is_imported_before_it_is_used():
    assert set(objections(Case(Mask(), NoBias(), "cpu", torch.float32, 64))) == set(BACKENDS)
    assert "flash_attn" not in sys.modules or CUDA


def flash_attn_func(q, k, v, dropout_p=0.0, causal=False, window_size=(-1, -1), alibi_slopes=None, deterministic=False):
    """What flash-attn documents, naively: (batch, time, heads, width), bottom-right aligned, windows inclusive."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    queries, keys = q.shape[2], k.shape[2]
    rows, columns = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    left, right = window_size
    right = 0 if causal else right
    scores = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(2, 3) / q.shape[3] ** 0.5
    if alibi_slopes is not None:
        assert alibi_slopes.dtype == torch.float32
        assert alibi_slopes.shape == (q.shape[1],)
        scores = scores - alibi_slopes[:, None, None] * (rows - columns).abs()
    hidden = torch.zeros(queries, keys, dtype=torch.bool)
    hidden |= (columns > rows + right) if right >= 0 else False
    hidden |= (columns < rows - left) if left >= 0 else False
    mixed = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v.repeat_interleave(q.shape[1] // k.shape[1], 1)
    flash_attn_func.seen = {"dropout_p": dropout_p, "deterministic": deterministic}
    return mixed.transpose(1, 2)


@pytest.mark.parametrize("bias", BIASES, ids=["no bias", "linear"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("last", [20, 3])
def test_flash_is_asked_for_what_the_reference_computes(monkeypatch, bias, causal, window, last):
    mask = Mask(causal, window)
    monkeypatch.setattr(kernels, "_flash", lambda: SimpleNamespace(flash_attn_func=flash_attn_func))
    q, k, v = inputs(4, 2, 20, 16)
    q = q[:, :, -last:]
    expected = attend(q, k, v, mask=mask, bias=bias, backend="reference")
    mixed = kernels.attend_by_flash(q, k, v, mask, bias, Places(), 0.25)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    assert flash_attn_func.seen == {"dropout_p": 0.25, "deterministic": False}


def test_flash_is_deterministic_where_torch_is(monkeypatch):
    monkeypatch.setattr(kernels, "_flash", lambda: SimpleNamespace(flash_attn_func=flash_attn_func))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    kernels.attend_by_flash(*inputs(4, 4, 5, 16), Mask(), NoBias(), Places(), 0.0)
    assert flash_attn_func.seen["deterministic"]


def formula(q, k, v, mask, bias, places):
    """The formula in the dtype of its inputs, every step rounded."""
    queries, keys = q.shape[2], k.shape[2]
    distance = places.rows(queries, keys, q.device)[..., None] - places.columns(keys, q.device)[..., None, :]
    distance = distance.reshape(-1, 1, queries, keys)
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).transpose(2, 3) / q.shape[3] ** 0.5
    if isinstance(bias, LinearBias):
        slopes = torch.tensor(bias.slopes, device=q.device)[:, None, None]
        scores = scores - (slopes * distance.abs()).to(q.dtype)
    hidden = distance < 0 if mask.causal else torch.zeros_like(distance, dtype=torch.bool)
    if mask.window is not None:
        hidden = hidden | (distance.abs() >= mask.window)
    if places.documents:
        hidden = hidden | (places.q_documents[:, None, :, None] != places.k_documents[:, None, None, :])
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v.repeat_interleave(group, 1)


def with_gradients(compute, tensors, upstream):
    tensors = [x.detach().clone().requires_grad_() for x in tensors]
    mixed = compute(*tensors)
    return [mixed, *torch.autograd.grad(mixed, tensors, upstream.to(mixed.dtype))]


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="no CUDA device")
@pytest.mark.parametrize("backend", ["reference", "sdpa", "flex", "flash"])
@pytest.mark.parametrize("bias", BIASES, ids=["no bias", "linear"])
@pytest.mark.parametrize("key_value_heads", [4, 1])
@pytest.mark.parametrize("mask", [Mask(), Mask(window=50), Mask(causal=False)], ids=repr)
@pytest.mark.parametrize("documents", [False, True], ids=["one document", "documents"])
def test_backends_err_at_most_twice_as_much_as_the_formula_in_bfloat16(backend, bias, key_value_heads, mask, documents):
    places = packed(200) if documents else Places()
    places = Places(*(None if x is None else x.to(DEVICE) for x in dataclasses.astuple(places)[:4]))
    case = Case(mask, bias, "cuda", torch.bfloat16, 64, places.plain, places.documents)
    if objection := BACKENDS[backend].objection(case):
        pytest.skip(objection)
    rounded = [x.to(DEVICE, torch.bfloat16) for x in inputs(4, key_value_heads, 200, 64)]
    upstream = torch.ones_like(rounded[0]) + rounded[0].flip(2)

    def exact(*tensors):
        return formula(*(x.double() for x in tensors), mask, bias, places)

    truth = with_gradients(exact, rounded, upstream.double())
    rough = with_gradients(lambda *tensors: formula(*tensors, mask, bias, places), rounded, upstream)
    got = with_gradients(
        lambda *tensors: attend(*tensors, mask=mask, bias=bias, places=places, backend=backend), rounded, upstream
    )
    for name, true, plain, ours in zip(("mixed", "q", "k", "v"), truth, rough, got, strict=True):
        allowed = 2 * (plain.double() - true).abs().max() + 1e-5
        assert (ours.double() - true).abs().max() <= allowed, name


def test_the_formula_by_which_backends_are_judged_is_the_reference():
    for mask in (Mask(), Mask(window=5), Mask(causal=False)):
        for places in (Places(), packed(20)):
            tensors = inputs(4, 2, 20, 16)
            expected = attend(*tensors, mask=mask, bias=BIASES[1], places=places, backend="reference")
            torch.testing.assert_close(formula(*tensors, mask, BIASES[1], places), expected, atol=1e-5, rtol=1e-5)
