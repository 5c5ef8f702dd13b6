"""Attention by kernels that never hold the scores of a whole sequence: FlexAttention and flash-attn.

Both are held to the reference by tests that need a GPU; FlexAttention's forward pass also runs, slowly, on a CPU.
Nothing is imported before it is used: FlexAttention brings torch's compiler with it, and flash-attn is optional.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import Any

import torch
from torch import Tensor

from architectures.masks import Bias, Case, LinearBias, Mask, NoBias, Places, allowed

WIDEST_FLASH_HEAD = 256
NARROWEST_FLEX_HEAD = 16  # the least that a Triton matrix product takes

MOST_COMPILED = 256


def objection_of_flex(case: Case) -> str | None:
    """Return why FlexAttention cannot do a case, or None."""
    if case.device not in ("cpu", "cuda"):
        return f"FlexAttention needs a CUDA device, got {case.device}"
    if case.device == "cpu" and case.training:
        return "FlexAttention has no backward pass on a CPU"
    if case.dropout:
        return "FlexAttention cannot drop attention probabilities"
    if case.device == "cuda" and case.head_width < NARROWEST_FLEX_HEAD:
        return f"FlexAttention needs heads at least {NARROWEST_FLEX_HEAD} wide, got {case.head_width}"
    return None


def attend_by_flex(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Bias, places: Places, dropout: float) -> Tensor:
    """Attend by FlexAttention: the bias as `score_mod`, mask and documents as `mask_mod` (arXiv:2412.05496)."""
    queries, keys = q.shape[2], k.shape[2]
    if places.plain and not places.documents:
        score, blocks = _plain_mods(mask.at(keys), bias, queries, keys, q.device)
    else:
        key = ("flex", mask, bias, queries, keys)
        score, blocks = places.once(key, lambda: _mods(mask, bias, places, queries, keys, q.device))
    compute = _flex(compiled=q.device.type == "cuda")
    with warnings.catch_warnings():
        # on a CPU, where it only checks the lowering, it is not compiled: that would take a minute
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        mixed: Tensor = compute(q, k, v, score_mod=score, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    return mixed


@functools.cache
def _flex(compiled: bool) -> Any:
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    # one process may train and score many arms, each with masks and lengths of its own; torch gives up after 8
    config.recompile_limit = max(config.recompile_limit, MOST_COMPILED)
    compute: Any = torch.compile(flex_attention) if compiled else flex_attention
    return compute


@functools.lru_cache(maxsize=8)
def _plain_mods(mask: Mask, bias: Bias, queries: int, keys: int, device: torch.device) -> tuple[Any, Any]:
    with torch.inference_mode(False):
        return _mods(mask, bias, Places(), queries, keys, device)


def _mods(mask: Mask, bias: Bias, places: Places, queries: int, keys: int, device: torch.device) -> tuple[Any, Any]:
    """Return score_mod and block mask; None for what changes nothing."""
    from torch.nn.attention.flex_attention import create_block_mask

    rows, columns = places.rows(queries, keys, device), places.columns(keys, device)
    per_sequence = [x for x in (rows, columns, places.q_documents) if x is not None and x.dim() == 2]
    batch = per_sequence[0].shape[0] if per_sequence else None

    def distance(b: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (rows[b, i] if rows.dim() == 2 else rows[i]) - (columns[b, j] if columns.dim() == 2 else columns[j])

    def visible(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = allowed(mask, distance(b, i, j))
        if places.q_documents is None or places.k_documents is None:
            return seen if seen is not None else i >= 0
        same = places.q_documents[b, i] == places.k_documents[b, j]
        return same if seen is None else seen & same

    score = None
    if isinstance(bias, LinearBias):
        slopes = torch.tensor(bias.slopes, device=device)

        def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return value - slopes[h] * distance(b, i, j).abs()

    if not mask.causal and mask.window is None and not places.documents:
        return score, None
    return score, create_block_mask(visible, batch, None, queries, keys, device=str(device))


def objection_of_flash(case: Case) -> str | None:
    """Return why flash-attn cannot do a case, or None."""
    if case.device != "cuda":
        return f"flash-attn needs a CUDA device, got {case.device}"
    if case.dtype not in (torch.float16, torch.bfloat16):
        return f"flash-attn needs bfloat16 or float16, got {str(case.dtype).removeprefix('torch.')}"
    if case.head_width > WIDEST_FLASH_HEAD:
        return f"flash-attn needs heads at most {WIDEST_FLASH_HEAD} wide, got {case.head_width}"
    if not case.plain:
        return "flash-attn needs plain positions 0, 1, 2, ..., got positions of the caller's choice"
    if case.documents:
        return "flash-attn is not lowered to document masks here"
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        return f"flash-attn needs compute capability 8.0, got {torch.cuda.get_device_capability()}"
    found = _flash()
    return found if isinstance(found, str) else None


def attend_by_flash(q: Tensor, k: Tensor, v: Tensor, mask: Mask, bias: Bias, places: Places, dropout: float) -> Tensor:
    """Attend by flash-attn 2 (arXiv:2307.08691), with its own ALiBi, window, groups and dropout.

    Its backward pass is deterministic where torch was told to be. It keeps probabilities with floor(255 (1 - dropout))
    / 255, and aligns queries with the last keys, as `Places` does.
    """
    reach = -1 if mask.window is None else mask.window - 1
    mixed: Tensor = _flash().flash_attn_func(
        *(x.transpose(1, 2) for x in (q, k, v)),
        dropout_p=dropout,
        causal=mask.causal,
        window_size=(reach, 0 if mask.causal else reach),
        alibi_slopes=None if isinstance(bias, NoBias) else _slopes(bias.slopes, q.device),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return mixed.transpose(1, 2)


@functools.lru_cache(maxsize=8)
def _slopes(slopes: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(slopes, dtype=torch.float32, device=device)


@functools.cache
def _flash() -> Any:
    """Return the module flash_attn, or why there is none."""
    try:
        return importlib.import_module("flash_attn")
    except ModuleNotFoundError as error:
        if error.name == "flash_attn":
            return "flash-attn is not installed; pip install 'ablation-workbench[flash]'"
        return f"flash-attn cannot be imported: {error}"
    except (ImportError, OSError) as error:
        return f"flash-attn cannot be imported: {error}"
