"""What tests share: where real recordings lie (never in the repository)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Return the folder of real recordings, or skip, saying so: CMELT_REALDATA, default ../shared/realdata."""
    folder = Path(os.environ.get("CMELT_REALDATA", REPOSITORY.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder} (set CMELT_REALDATA)")
    return folder
