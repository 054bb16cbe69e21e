"""Sixteen datasets: what follows from the manifests, and rates at which images were decoded and attacked."""

import json

from measured import printed
from zsar.datasets.manifest import get_manifest
from zsar.paths import data_path
from zsar.profiles import SIXTEEN

PAGE = "sixteen-datasets"
NOT_MEASURED = {"5 GB": "the size from which `data fetch` asks first"}


def numbers() -> dict[str, float]:
    """The page's measured numbers by name."""
    texts = [get_manifest(name).protocols["tecoa16"] for name in SIXTEEN]
    others = [get_manifest(name).protocols["cb"] for name in SIXTEEN]
    pairs = [pair for ours, theirs in zip(texts, others, strict=True)
             for pair in zip(ours.classnames, theirs.classnames, strict=True)]
    images = [text.images for text in texts]
    decoding, attacking = (json.loads(data_path("results", f"{name}.json").read_text(encoding="utf-8"))
                           for name in ("loaders-h200", "evaluation-h200"))
    a_core = decoding["images_per_second"]["files"] / decoding["workers"]
    return {"known sizes": printed(PAGE, r"known sizes together: (\d+) GB"),
            "evaluated on all images": sum(text.split == "all" for text in texts),
            "names that differ": sum(ours != theirs for ours, theirs in pairs),
            "names of other words": sum(plain(ours) != plain(theirs) for ours, theirs in pairs),
            "largest over smallest": max(images) / min(images),
            "ceiling lost, ImageNet": 100 - printed(PAGE, r"^ImageNet: at most ([\d.]+) %"),
            "ceiling lost, cars": 100 - printed(PAGE, r"^StanfordCars: at most ([\d.]+) %"),
            "cores that feed PGD-10": attacking["pgd-10"]["images_per_second"] / a_core}


def plain(name: str) -> str:
    """A class name without capitals and hyphens, as the page's cell compares them."""
    return " ".join(name.lower().replace("-", " ").replace("_", " ").replace("/", " ").split())
