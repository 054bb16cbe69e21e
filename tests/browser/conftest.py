"""The browser of these tests; where there is none they are skipped."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from browser import CHROMIUM, MISSING, open_chromium  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    """One chromium for all tests of a module."""
    if not CHROMIUM:
        pytest.skip(MISSING)
    with open_chromium() as chromium:
        yield chromium
