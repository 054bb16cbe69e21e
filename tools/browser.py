"""The browser of the page tests and of `make pdf`: one look-up for both."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

CHROMIUM = os.environ.get("ZSAR_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "no chromium here (its path may be given in ZSAR_CHROMIUM)"


@contextmanager
def open_chromium() -> Iterator:
    """A headless Chromium of this machine, closed afterwards; ``CHROMIUM`` says whether there is one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
