"""Fixtures of the course's tests."""

import pytest
from sums import make_assignment

from zsar.course.assignment import Assignment


@pytest.fixture
def assignment(tmp_path) -> Assignment:
    """A very small assignment in ``tmp_path/assignments/sums``."""
    return make_assignment(tmp_path / "assignments")
