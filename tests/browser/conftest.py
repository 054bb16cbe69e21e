"""The browser of these tests; where there is none they are skipped."""

import os
import shutil

import pytest

CHROMIUM = os.environ.get("ZSAR_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    """One chromium for all tests of a module."""
    if not CHROMIUM:
        pytest.skip("no chromium here (its path may be given in ZSAR_CHROMIUM)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
