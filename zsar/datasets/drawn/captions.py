"""The drawn web: endless picture-caption pairs of every kind of picture, as noisy and mixed as pretraining data is.

As CLIP's web data does, it covers the sixteen tasks' domains, and their classes by name, in mixed manners: captions
name a thing, sometimes its colour or ground, sometimes less. Tissue and memes are rare and seldom named precisely.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from zsar.datasets.drawn import pictures
from zsar.datasets.drawn.backgrounds import BACKGROUNDS
from zsar.datasets.drawn.camera import Camera, photograph
from zsar.datasets.drawn.canvas import COLOURS, Canvas, canvas, grouped
from zsar.datasets.drawn.icons import icons
from zsar.datasets.drawn.instruments import LAND, satellite, tissue
from zsar.datasets.drawn.memes import WEB_WORDS, described_memes
from zsar.datasets.drawn.pictures import AIRCRAFT, CAR_BODIES, PETS, Manner
from zsar.datasets.drawn.randomness import Stream
from zsar.datasets.drawn.scenes import scenes
from zsar.datasets.drawn.tasks import (
    DTD,
    FLOWERS102,
    FOOD101,
    SIZE,
    SOURCE_CARS,
    SOURCE_FLOWERS,
    SOURCE_SCENES,
    SOURCE_TEXTURES,
    STANFORD_CARS,
    SUN397,
    TASKS,
)
from zsar.datasets.drawn.textures import described_textures

WEB_CAMERA = Camera((.25, .75), (.004, .04), .15)
_PREFIXES = ("this is a photo of {}", "a photo of {}", "{}", "a picture of {}")
_PREFIX_WEIGHTS = (6, 2, 1, 1)
SYNONYMS = {"car": ("car", "automobile")}


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _captioned(stream: Stream, phrases: list[str]) -> list[str]:
    """Each phrase in the frame of a caption."""
    return [frame.format(phrase) for frame, phrase in
            zip(stream.choice(_PREFIXES, _PREFIX_WEIGHTS), phrases, strict=True)]


def _object_pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
    names = stream.choice(tuple(icons()))
    manners = stream.choice(_WEB_MANNERS, (4, 2, 2, 2))
    image = np.empty((len(stream), 3, board.size, board.size), np.float32)
    phrases = [""] * len(stream)
    for manner, index in grouped(manners):
        own = stream.fork("object")[index]
        image[index], said = pictures.described_objects(board, own, names[index], manner)
        colour, ground, pencil = (own.fork(what).chance(p) for what, p in (("c", .25), ("g", .2), ("s", .4)))
        for j, i in enumerate(index):
            noun = SYNONYMS.get(names[i], (names[i],))
            noun = noun[int(stream.keys[i] % np.uint64(len(noun)))]
            phrase = article(f"{said.colour[j]} {noun}" if colour[j] and icons()[names[i]].has_body else noun)
            phrase = f"a sketch of {phrase}" if said.sketched[j] and pencil[j] else phrase
            phrases[i] = f"{phrase} {BACKGROUNDS[said.ground[j]]}" if ground[j] and said.ground[j] else phrase
    return image, _captioned(stream.fork("frame"), phrases)


_WEB_MANNERS = (
    Manner(styles=(.6, .25, .15), scale=(.6, 1.), turn=.25),
    Manner(clutter=2, styles=(.6, .3, .1), scale=(.6, .9)),
    Manner(grounds=("plain", "snow"), styles=(.5, .3, .2), scale=(.75, .98)),
    Manner(styles=(.85, .15, 0.), scale=(.85, 1.05), turn=.12),
)


def _named_pairs(names: tuple[str, ...], draw: Callable, phrase: Callable[[Stream, np.ndarray], list[str]] | None = None
                 ) -> Callable:
    """Pairs of a family whose captions are an article and the class name, or what ``phrase`` makes of it."""
    def pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
        chosen = stream.choice(names)
        image = draw(board, stream.fork("picture"), chosen)
        phrases = [article(name) for name in chosen] if phrase is None else phrase(stream.fork("phrase"), chosen)
        return image, _captioned(stream.fork("frame"), phrases)
    return pairs


def _anywhere(draw: Callable) -> Callable:
    """``draw`` on any ground."""
    return lambda board, stream, names: draw(board, stream, names, grounds=tuple(BACKGROUNDS))


def _with_kind(kind: str, share: float = .25) -> Callable:
    """Captions that sometimes add "a type of ..."."""
    def phrase(stream: Stream, names: np.ndarray) -> list[str]:
        return [article(name) + (f" a type of {kind}" if said else "")
                for name, said in zip(names, stream.chance(share), strict=True)]
    return phrase


def _food_phrase(stream: Stream, names: np.ndarray) -> list[str]:
    endings = stream.choice(("", " on a plate", " a type of food"), (5, 3, 2))
    return [(article(name) if bare else name) + ending
            for name, ending, bare in zip(names, endings, stream.chance(.6), strict=True)]


def _land_pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
    names = stream.choice(tuple(LAND))
    kinds = stream.choice(("a satellite photo of {}", "a centered satellite photo of {}", "this is a photo of {}"))
    return (satellite(board, stream.fork("picture"), names),
            [kind.format(name) for kind, name in zip(kinds, names, strict=True)])


def _texture_pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
    names = stream.choice((*DTD, *SOURCE_TEXTURES))
    image, colours = described_textures(board, stream.fork("picture"), names)
    kinds = stream.choice(("a surface with a {} texture", "this is a photo of a {} texture", "this is a photo of a {}",
                           "a {c} {} texture"), (3, 2, 2, 1))
    return image, [kind.format(name, c=colour) for kind, name, colour in zip(kinds, names, colours, strict=True)]


def _tissue_pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
    names = stream.choice(TASKS["DrawnPCAM"].classnames)
    plain = np.where(stream.chance(.5), "lymph node tissue", "tissue")
    phrases = np.where(stream.chance(.3), names, plain)
    kinds = stream.choice(("this is a photo of {}", "a microscope image of {}"))
    return (tissue(board, stream.fork("picture"), names),
            [kind.format(phrase) for kind, phrase in zip(kinds, phrases, strict=True)])


def _meme_pairs(board: Canvas, stream: Stream) -> tuple[np.ndarray, list[str]]:
    names = stream.choice(TASKS["DrawnHatefulMemes"].classnames)
    image, words, faces = described_memes(board, stream.fork("picture"), names, WEB_WORDS)
    kinds = stream.choice(("a {name}", "a meme with a {face} face", "a meme that says {word}"), (2, 4, 2))
    phrases = [kind.format(name=name, face=face, word=word)
               for kind, name, face, word in zip(kinds, names, faces, words, strict=True)]
    return image, _captioned(stream.fork("frame"), phrases)


@dataclass(frozen=True)
class Family:
    """A kind of picture on the drawn web: its share of the web and the maker of (images, captions)."""

    share: float
    pairs: Callable[[Canvas, Stream], tuple[np.ndarray, list[str]]]


FAMILIES = {
    "object": Family(.47, _object_pairs),
    "pet": Family(.07, _named_pairs(tuple(PETS), _anywhere(pictures.pets), _with_kind("pet"))),
    "flower": Family(.08, _named_pairs((*FLOWERS102, *SOURCE_FLOWERS), _anywhere(pictures.flowers),
                                       _with_kind("flower"))),
    "food": Family(.05, _named_pairs(FOOD101, _anywhere(pictures.food), _food_phrase)),
    "car": Family(.08, _named_pairs((*STANFORD_CARS, *SOURCE_CARS), _anywhere(pictures.cars))),
    "scene": Family(.08, _named_pairs((*SUN397, *SOURCE_SCENES), scenes)),
    "aircraft": Family(.05, _named_pairs(tuple(AIRCRAFT), _anywhere(pictures.aircraft), _with_kind("aircraft"))),
    "land": Family(.035, _land_pairs),
    "texture": Family(.06, _texture_pairs),
    "tissue": Family(.01, _tissue_pairs),
    "meme": Family(.015, _meme_pairs),
}


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 images at another size, as CLIP's own preprocessing resizes them (bicubic)."""
    pixels = interpolate(torch.from_numpy(image).float(), size=(size, size), mode="bicubic", antialias=True)
    return pixels.round().clamp(0, 255).byte().numpy()


def web_pairs(indices: np.ndarray, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Pairs ``indices`` of the drawn web: uint8 [n, 3, 48, 48] and n captions; pair i depends on seed and i alone.

    One picture in seven is small (24 or 32 pixels) and enlarged, as much of the web is.
    """
    stream = Stream.of("web", seed, indices)
    families = stream.choice(tuple(FAMILIES), tuple(family.share for family in FAMILIES.values()))
    sizes = stream.choice((SIZE, 32, 24), (12, 1, 1)).astype(np.int64)
    images, captions = np.empty((len(stream), 3, SIZE, SIZE), np.uint8), [""] * len(stream)
    for size in np.unique(sizes):
        board = canvas(int(size))
        for family, index in grouped(np.where(sizes == size, families, None)):
            if family is None:
                continue
            scene, said = FAMILIES[family].pairs(board, stream.fork(family)[index])
            picture = photograph(board, stream.fork("camera")[index], scene, WEB_CAMERA)
            images[index] = picture if size == SIZE else _resized(picture, SIZE)
            for i, caption in zip(index, said, strict=True):
                captions[i] = caption
    return images, captions


def vocabulary() -> list[str]:
    """Every word of captions, class names and templates, and a few more, sorted: the drawn CLIP's vocabulary."""
    texts = [*COLOURS, *BACKGROUNDS.values(), *icons(), *PETS, *CAR_BODIES, *AIRCRAFT, *LAND, *SUN397, *SOURCE_SCENES,
             *DTD, *SOURCE_TEXTURES, *FLOWERS102, *SOURCE_FLOWERS, *_PREFIXES, _OTHER_WORDS]
    texts += [text for words in (*WEB_WORDS.values(), *SYNONYMS.values()) for text in words]
    texts += [text for task in TASKS.values() for text in (*task.classnames, *task.templates)]
    return sorted({word for text in texts for word in re.findall("[a-z0-9]+", text.lower())})


_OTHER_WORDS = """an a sketch of satellite centered surface texture with type pet flower food aircraft on plate
microscope image meme face happy sad that says lymph node tissue and the nice blurry drawing small large"""
