"""The sixteen real datasets in the layouts in which they are published. ``folders``, ``annotated`` and ``arrays`` read
the original files, ``shards`` those of the Hugging Face hub; ``images`` decodes.
"""

from zsar.datasets.real import annotated, arrays, folders
from zsar.datasets.real.listing import LayoutReader, Listing

__all__ = ["READERS", "LayoutReader", "Listing"]

#: What reads the original layout of each. ``root`` is what torchvision's class of that name takes.
READERS: dict[str, LayoutReader] = {
    "ImageNet": folders.imagenet,
    "CIFAR10": arrays.cifar10,
    "CIFAR100": arrays.cifar100,
    "STL10": arrays.stl10,
    "Caltech101": folders.caltech101,
    "Caltech256": folders.caltech256,
    "OxfordPets": annotated.oxford_pets,
    "StanfordCars": annotated.stanford_cars,
    "Food101": annotated.food101,
    "Flowers102": annotated.flowers102,
    "FGVCAircraft": annotated.fgvc_aircraft,
    "SUN397": folders.sun397,
    "DTD": annotated.dtd,
    "PCAM": arrays.pcam,
    "HatefulMemes": annotated.hateful_memes,
    "EuroSAT": folders.eurosat,
}
