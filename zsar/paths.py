"""Where the package finds its data: one function for a checkout and for an installation."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
DRIVE = Path("/content/drive")  # where Colab puts a user's Drive


def data_path(*parts: str) -> Path:
    """A file of the shipped data: ``data/`` of the checkout, or the copy that the wheel carries in ``zsar/_data``."""
    installed = _PACKAGE / "_data"
    return (installed if installed.is_dir() else _PACKAGE.parent / "data").joinpath(*parts)


def lasting_folder(name: str) -> Path:
    """A folder for results that outlive the machine, made if it is not there.

    On Colab ``zsar/NAME`` in the user's Drive, which is asked for once; elsewhere ``NAME`` in the working directory.

    Hand it to ``--out`` of ``adapt`` and ``reproduce``: the same line goes on after a disconnect.
    """
    try:
        from google.colab import drive
    except ImportError:
        folder = Path(name).resolve()
    else:
        drive.mount(str(DRIVE))
        folder = DRIVE / "MyDrive" / "zsar" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_path(*parts: str) -> Path:
    """A file that can be made again: below ``$ZSAR_CACHE``, else ``zsar`` in the user's cache folder."""
    root = os.environ.get("ZSAR_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "zsar")
    return Path(root).joinpath(*parts)
