"""Other systems: what Windows lacks is not asked for on import, so that a model loads and encodes there; nothing else is tried."""

from __future__ import annotations

import subprocess
import sys

WINDOWS = """
import os, pkgutil, importlib, signal, sys
import psutil, transformers.modeling_utils  # libraries have a half of their own for Windows
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import cmelt
for module, names in ((os, ("pread", "preadv", "statvfs", "sched_getaffinity", "O_CLOEXEC", "fork")), (signal, ("SIGUSR1", "SIGALRM"))):
    for name in names:
        delattr(module, name)
for found in pkgutil.walk_packages(cmelt.__path__, "cmelt."):
    importlib.import_module(found.name)
"""
"""Imports every module without what only POSIX has."""


def test_every_module_is_imported_without_posix() -> None:
    done = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
