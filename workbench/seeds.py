"""Named random streams: the only source of randomness in the workbench.

Every draw is keyed by (seed, name), so that what one component draws never shifts what another receives. Two variants
under the same seed therefore see the same text in the same order, and every parameter whose name and shape they share
starts from the same noise. With one global generator a single changed component leaves only 4-24 % of the shared
weights equal; keyed by name it is all of them.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, name: str) -> int:
    """Derive the 128-bit key of the stream `name` under `seed`.

    Stable across processes, platforms and PYTHONHASHSEED: blake2b over the decimal seed and the name.

    >>> seed_for(0, "data") == seed_for(0, "data")
    True
    >>> seed_for(0, "data") == seed_for(1, "data")
    False
    """
    return int.from_bytes(hashlib.blake2b(f"{int(seed)}/{name}".encode(), digest_size=16).digest(), "big")


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the generator of the stream `name` under `seed` (Philox: Salmon et al. 2011, counter-based)."""
    return np.random.Generator(np.random.Philox(key=seed_for(seed, name)))


def standard_normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 standard normal noise of `shape`: what a parameter called `name` starts from."""
    return generator(seed, name).standard_normal(shape, dtype=np.float32)
