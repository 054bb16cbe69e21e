"""The sixteen real datasets in the layouts in which they are published. ``folders``, ``annotated`` and ``arrays`` read
the original files, ``shards`` those of the Hugging Face hub; ``images`` decodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zsar.datasets.real.images import Encoded


@dataclass(frozen=True)
class Listing:
    """A split as its files have it, nothing decoded yet: ids, labels int64 [N] in the order of ``Manifest.annotated``,
    and the encoded images. Sorted by what ``ids`` say, whatever the order on disk.

    ids are stable and readable: the path below the dataset's folder with slashes, or the number in an array file.
    """

    ids: list[str]
    labels: np.ndarray
    encoded: Sequence[Encoded]


#: ``reader(root, split, annotated) -> Listing``; split is ``train`` or ``test``, the protocol's evaluation split.
LayoutReader = Callable[[Path, str, tuple[str, ...]], Listing]
