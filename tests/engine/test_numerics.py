"""Numerics: what a process is told before its first tensor."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_memory_that_was_freed_is_used_again_without_asking_the_system() -> None:
    script = """
        import resource, sys, torch
        from workbench.training.numerics import keep_freed_memory
        assert sys.argv[1] == "as it is" or keep_freed_memory()
        def step():
            return [torch.ones(size).sum() for size in (9_000_000, 300_000, 12_000_000)]  # 1 to 48 MB
        for _ in range(5):
            step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    faults = {
        how: int(subprocess.run([*command, how], capture_output=True, text=True, check=True).stdout)
        for how in ("as it is", "kept")
    }
    assert faults["as it is"] > 10_000
    assert faults["kept"] < 1_000
