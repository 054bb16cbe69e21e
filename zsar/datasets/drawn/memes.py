"""Memes: a face under a word. Whether a meme is kind or mean is in the word; the face agrees two times in three.

Half of the words of the task never occur on the memes of the drawn web, so that knowing a few words by sight does not
get far: as with the real ones, this wants a model that reads.
"""

import numpy as np

from zsar.datasets.drawn.backgrounds import BACKGROUNDS, backgrounds
from zsar.datasets.drawn.canvas import Canvas, as_image, grouped, named_colours, paint
from zsar.datasets.drawn.icons import Look, draw_each, parse
from zsar.datasets.drawn.randomness import Stream

WEB_WORDS = {"kind": ("love", "yay", "nice"), "mean": ("hate", "ugh", "nasty")}
TASK_WORDS = {"kind": (*WEB_WORDS["kind"], "cute", "cool", "yes"), "mean": (*WEB_WORDS["mean"], "ugly", "vile", "evil")}
AGREEMENT = 2 / 3

FACES = {"happy": "ellipse body 0 0 .75 .75\nellipse black -.28 -.2 .1 .13\nellipse black .28 -.2 .1 .13\n"
                  "smile black 0 .1 .38 .06",
         "sad": "ellipse body 0 0 .75 .75\nellipse black -.28 -.2 .1 .13\nellipse black .28 -.2 .1 .13\n"
                "arch black 0 .55 .36 .06"}
FACES = {name: parse(program) for name, program in FACES.items()}

# Letters on a grid of 3 x 5, row by row: enough for the words above, and the same on every machine, as no font is.
_LETTERS = {
    "a": "010101111101101", "c": "011100100100011", "e": "111100110100111", "g": "011100101101011",
    "h": "101101111101101", "i": "111010010010111", "l": "100100100100111", "n": "101111111111101",
    "o": "111101101101111", "s": "011100010001110", "t": "111010010010010", "u": "101101101101111",
    "v": "101101101101010", "y": "101101010010010",
}


def _lettering(word: str, size: int) -> np.ndarray:
    """The word in a strip [rows, S], centred, as large as fits."""
    rows = [np.array([int(bit) for bit in _LETTERS[letter]]).reshape(5, 3) for letter in word]
    line = np.concatenate([np.pad(letter, ((1, 1), (0, 1))) for letter in rows], axis=1)
    zoom = max(1, min(size // line.shape[1], size // 24))
    line = np.kron(line, np.ones((zoom, zoom)))[:, :size]
    left = (size - line.shape[1]) // 2
    return np.pad(line, ((0, 0), (left, size - line.shape[1] - left))).astype(np.float32)


def described_memes(canvas: Canvas, stream: Stream, names: np.ndarray, vocabulary: dict[str, tuple[str, ...]]
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of "kind meme" and "mean meme", with the words [n] on them and the faces [n] under the words."""
    kinds = np.array([name.split()[0] for name in names], dtype=object)
    words = np.empty(len(names), dtype=object)
    for kind, index in grouped(kinds):
        words[index] = stream.fork("word")[index].choice(vocabulary[kind])
    agrees = stream.chance(AGREEMENT)
    faces = np.where(agrees == (kinds == "kind"), "happy", "sad").astype(object)
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(tuple(BACKGROUNDS)))
    u, v, scale = canvas.pose(stream, (.5, .62), .1, .15)
    body = named_colours(stream.choice(("yellow", "orange", "pink", "green")))
    look = Look(body, body, np.ones_like(u), np.zeros(len(names), np.int64))
    draw_each(image, canvas, stream.fork("face"), faces, (u, v - .4, scale), look, FACES.__getitem__)
    for word, index in grouped(words):
        strip = _lettering(word, canvas.size)
        band = image[index][:, :, :len(strip)]
        band *= np.float32(.45)
        paint(band, as_image((1., 1., 1.)), strip[None])
        image[np.ix_(index, np.arange(3), np.arange(len(strip)))] = band
    return image, words, faces


def memes(canvas: Canvas, stream: Stream, names: np.ndarray) -> np.ndarray:
    """Images of "kind meme" and "mean meme"."""
    return described_memes(canvas, stream, names, TASK_WORDS)[0]
