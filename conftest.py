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
    """Skips tests marked ``long`` unless ``ZSAR_LONG`` is set, and so the demos of assignments (or ``ZSAR_DEMOS``).

    Demos draw pictures and train for the student; no other cell needs them, for the grader leaves them out too. The
    weekly job and the record of an accelerator run them.
    """
    long = bool(os.environ.get("ZSAR_LONG"))
    demos = long or bool(os.environ.get("ZSAR_DEMOS"))
    for item in items:
        tags = getattr(item, "cell", {}).get("metadata", {}).get("tags", [])  # of a cell that nbval runs
        if not long and item.get_closest_marker("long") or not demos and "demo" in tags:
            item.add_marker(pytest.mark.skip(reason="long: make test LONG=1"))
