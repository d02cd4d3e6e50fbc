"""A short run of the header fuzz; the long one is tests/benchmarks/fuzz_headers.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_any_header_ends_as_a_recording_or_a_reason() -> None:
    """In a process of its own: memory is measured, and every file that it opens is watched."""
    command = [sys.executable, "-m", "tests.benchmarks.fuzz_headers", "--inputs", "1500", "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"recording"' in done.stdout
