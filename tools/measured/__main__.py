"""``make numbers``: writes the measured numbers of the prose anew, from the stored results."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured import ROOT, pages, write  # noqa: E402

for path in pages():
    if write(path):
        print(f"{path.relative_to(ROOT)}: numbers renewed")
