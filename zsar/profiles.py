"""The three profiles as data: the same notebooks run on a drawn world, on a Colab GPU, or on everything."""

import os
from dataclasses import dataclass

from zsar.errors import unknown_name

#: The sixteen datasets of the paper (Mao et al., ICLR 2023, arXiv 2212.07016), in its order.
SIXTEEN = (
    "ImageNet", "CIFAR10", "CIFAR100", "STL10", "Caltech101", "Caltech256", "OxfordPets", "StanfordCars",
    "Food101", "Flowers102", "FGVCAircraft", "SUN397", "DTD", "PCAM", "HatefulMemes", "EuroSAT",
)


#: Those that can be downloaded without an account and by a script, 3 GB at most each: an evening on Colab.
FREE = ("CIFAR10", "CIFAR100", "STL10", "Caltech101", "OxfordPets", "Flowers102", "FGVCAircraft", "DTD", "EuroSAT")


#: The rows of the table: the original, the control, then losses without and with text, by finetuning and by prompts.
METHODS = ("clip", "clean:finetune", "adv:finetune", "coadv:finetune", "tecoa:finetune", "fare:finetune",
           "adv:pad+token", "tecoa:pad+token")
#: The drawn CLIP sees a picture in 37 tokens: 144 more cost five times as much and win nothing there (the chapter
#: Finetuning against prompt tuning measures it), so its prompts are pads.
DRAWN_METHODS = tuple(name.removesuffix("+token") for name in METHODS)


@dataclass(frozen=True)
class Profile:
    """What a run is made of. ``eps_255`` is in grey levels (4 = 4/255), ``images`` the test images a dataset.

    ``methods`` and ``attacks`` are those of a reproduction, as ``zsar.reproduce`` and ``zsar.attacks`` spell them.
    """

    name: str
    model: str
    pretrained: str | None  # None: the weights that the package ships
    datasets: tuple[str, ...]
    source: str  # the only dataset that an adaptation may train on
    eps_255: float
    images: int | None  # None: all of them
    recipe: str  # how an adaptation is trained (``zsar.recipes``)
    methods: tuple[str, ...]
    attacks: tuple[str, ...]

    def twin(self, name: str) -> str:
        """The dataset that stands here for ``name`` of the sixteen: itself, its drawn twin, or the next that is here.

        Raises UnknownNameError.
        """
        if name not in SIXTEEN:
            raise unknown_name("dataset", name, SIXTEEN)
        place = SIXTEEN.index(name)
        return next(dataset for other in SIXTEEN[place:] + SIXTEEN[:place] for dataset in (other, f"Drawn{other}")
                    if dataset in self.datasets)


PROFILES = {profile.name: profile for profile in (
    Profile("drawn", "drawn", None, tuple(f"Drawn{name}" for name in SIXTEEN), "DrawnImageNet", 4, 200, "drawn",
            DRAWN_METHODS, ("none", "pgd-20-worst")),
    Profile("colab", "ViT-B-32-quickgelu", "openai", FREE, "CIFAR100", 1, 1000, "colab",
            METHODS, ("none", "pgd-10@1:1")),
    Profile("full", "ViT-B-32-quickgelu", "openai", SIXTEEN, "ImageNet", 1, None, "paper",
            METHODS, ("none", "pgd-100@1:1")),
)}


def get_profile(name: str | None = None) -> Profile:
    """The profile called ``name``; without a name the one in ``$ZSAR_PROFILE``, else ``drawn``.

    Raises UnknownNameError.
    """
    name = name or os.environ.get("ZSAR_PROFILE") or "drawn"
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return PROFILES[name]
