"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real corpora, tasks, tokenizer and golden numbers beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared material at {SHARED}")
    return SHARED
