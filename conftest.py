"""For all tests: the counts that take minutes run only when asked for (``make test LONG=1``); nbval leaves a record."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

pytest_plugins = ["notebook_record"]

#: Nothing of a student's notebook is there to be compared: its stubs raise, and it has no outputs.
collect_ignore_glob = ["book/assignments/*/student.ipynb"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked ``long`` unless ``ZSAR_LONG`` is set."""
    if not os.environ.get("ZSAR_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test LONG=1"))
