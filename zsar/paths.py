"""Where the package finds its data: one function for a checkout and for an installation."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_path(*parts: str) -> Path:
    """A file of the shipped data: ``data/`` of the checkout, or the copy that the wheel carries in ``zsar/_data``."""
    installed = _PACKAGE / "_data"
    return (installed if installed.is_dir() else _PACKAGE.parent / "data").joinpath(*parts)


def cache_path(*parts: str) -> Path:
    """A file that can be made again: below ``$ZSAR_CACHE``, else ``zsar`` in the user's cache folder."""
    root = os.environ.get("ZSAR_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "zsar")
    return Path(root).joinpath(*parts)
