"""Puts adaptations that zsar reproduce has trained into data/drawn/adapted, in half precision.

    python tools/ship_adapted.py FOLDER...

FOLDER is the --out of a reproduction. ``provenance.json`` beside the weights says how each was trained, by which code.
"""

import json
import sys
from pathlib import Path

from zsar.clip import load_clip
from zsar.methods import adapted_header, load_adapted, save_adapted
from zsar.outputs import write_json
from zsar.trainer import ADAPTED, RECORD

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "drawn" / "adapted"


def ship(folder: Path) -> dict:
    """Write one adaptation; what its provenance says."""
    original, header = load_clip("drawn", device="cpu"), adapted_header(folder / ADAPTED)
    record, settings = json.loads((folder / RECORD).read_text()), header["settings"]
    name = f"{settings['loss']}_{settings['method']}_seed-{settings['seed']}.safetensors"
    adapted = load_adapted(folder / ADAPTED, original)
    save_adapted(SHIPPED / name, adapted, original, header["method"], half=True, settings=settings)
    return {name: {"digest": load_adapted(SHIPPED / name, original).digest, "seconds": record["history"]["seconds"],
                   "held_out": record["history"]["held_out"], "settings": settings,
                   "provenance": record["provenance"]}}


def main() -> None:
    """Ship what is below the folders of the command line."""
    SHIPPED.mkdir(parents=True, exist_ok=True)
    file = SHIPPED / "provenance.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    for out in map(Path, sys.argv[1:]):
        for folder in sorted((out / "adapted").glob("*/")):
            if (folder / ADAPTED).exists():
                told |= ship(folder)
    write_json(file, dict(sorted(told.items())))


if __name__ == "__main__":
    main()
