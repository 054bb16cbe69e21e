"""A simulated class of 6 on the real assignments (200 with ``make test LONG=1``): nobody lost, every grade as due."""

import os
import shutil

import pytest
from class_of import wrong_grades


@pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here: student code cannot be isolated")
def test_every_grade_is_what_is_due(tmp_path):
    n = 200 if os.environ.get("ZSAR_LONG") else 6
    grades, wrong = wrong_grades(n, tmp_path)
    assert len(grades) == n
    assert not wrong
