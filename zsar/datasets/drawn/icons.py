"""Icons: little drawing programs (``icons.txt``) painted by signed distance, filled, outlined or sketched."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from zsar.datasets.drawn.canvas import COLOURS, INK, Canvas, as_image, grouped, jitter, named_colours, paint
from zsar.datasets.drawn.randomness import Stream


@dataclass(frozen=True)
class Part:
    """One shape of a drawing program, with its colour and its numbers in object units."""

    shape: str
    colour: str
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Icon:
    """A drawing program and the colours that its body may take."""

    colours: tuple[str, ...]
    parts: tuple[Part, ...]
    has_body: bool


def parse(program: str) -> tuple[Part, ...]:
    """Parts of a drawing program, a line a part: shape, colour, numbers."""
    rows = (line.split() for line in program.strip().splitlines())
    return tuple(Part(row[0], row[1], tuple(float(number) for number in row[2:])) for row in rows)


@cache
def icons() -> dict[str, Icon]:
    """Every icon by its name."""
    text = files("zsar.datasets.drawn").joinpath("icons.txt").read_text(encoding="utf-8")
    table, blocks = {}, []
    for line in text.splitlines():
        if line.startswith(" "):
            blocks[-1][2].append(line)
        elif line and not line.startswith("#"):
            name, colours = line.split(": ")
            blocks.append((name, colours, []))
    for name, colours, lines in blocks:
        every = colours in ("any", "fixed")
        table[name] = Icon(tuple(COLOURS) if every else tuple(colours.split()), parse("\n".join(lines)),
                           colours != "fixed")
    return table


# Signed distances: negative inside. u, v are object coordinates [n, S, S].

def _ellipse(u, v, x, y, rx, ry):
    return (np.sqrt(((u - x) / rx)**2 + ((v - y) / ry)**2) - 1) * min(rx, ry)


def _box(u, v, x, y, w, h, turn=0.0):
    u, v = u - x, v - y
    if turn:
        c, s = float(np.cos(turn)), float(np.sin(turn))
        u, v = c * u + s * v, c * v - s * u
    return np.maximum(np.abs(u) - w, np.abs(v) - h)


def _polygon(u, v, *xy):
    corners = np.array(xy).reshape(-1, 2)
    ahead = np.roll(corners, -1, axis=0)
    if (corners[:, 0] * ahead[:, 1] - ahead[:, 0] * corners[:, 1]).sum() < 0:
        corners, ahead = ahead[::-1], corners[::-1]
    distance = None
    for (ax, ay), (bx, by) in zip(corners.tolist(), ahead.tolist(), strict=True):
        length = float(np.hypot(bx - ax, by - ay)) + 1e-9
        edge = u * ((by - ay) / length) - v * ((bx - ax) / length) + (ay * (bx - ax) - ax * (by - ay)) / length
        distance = edge if distance is None else np.maximum(distance, edge, out=distance)
    return distance


def _line(u, v, x1, y1, x2, y2, radius):
    dx, dy = x2 - x1, y2 - y1
    t = np.clip(((u - x1) * dx + (v - y1) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.sqrt((u - x1 - t * dx)**2 + (v - y1 - t * dy)**2) - radius


def _ring(u, v, x, y, radius, half_width):
    return np.abs(np.sqrt((u - x)**2 + (v - y)**2) - radius) - half_width


def _petals(u, v, x, y, radius, depth, count):
    u, v = u - x, v - y
    wave = 1 + depth * np.cos(count * np.arctan2(v, u) + np.float32(np.pi / 2))
    return (np.sqrt(u**2 + v**2) - radius * wave) * np.float32(.8)


def _crescent(u, v, x, y, radius, x2, y2, radius2):
    return np.maximum(_ellipse(u, v, x, y, radius, radius), -_ellipse(u, v, x2, y2, radius2, radius2))


SHAPES: dict[str, Callable] = {
    "ellipse": _ellipse, "box": _box, "polygon": _polygon, "line": _line, "ring": _ring, "petals": _petals,
    "crescent": _crescent,
    "arch": lambda u, v, x, y, *rest: np.maximum(_ring(u, v, x, y, *rest), v - y),
    "smile": lambda u, v, x, y, *rest: np.maximum(_ring(u, v, x, y, *rest), y - v),
    "dome": lambda u, v, x, y, *rest: np.maximum(_ellipse(u, v, x, y, *rest), v - y),
    "bowl": lambda u, v, x, y, *rest: np.maximum(_ellipse(u, v, x, y, *rest), y - v),
}

FILLED, OUTLINED, SKETCHED = 0, 1, 2


@dataclass
class Look:
    """How the icons of n pictures are painted. body, accent [n, 3]; shade [n, S, S] multiplies fills;
    style [n] is FILLED, OUTLINED or SKETCHED; coat [n, S, S] mixes the accent into the body (stripes, spots)."""

    body: np.ndarray
    accent: np.ndarray
    shade: np.ndarray
    style: np.ndarray
    coat: np.ndarray | None = None

    def __getitem__(self, index: np.ndarray) -> "Look":
        coat = None if self.coat is None else self.coat[index]
        return Look(self.body[index], self.accent[index], self.shade[index], self.style[index], coat)


def draw_parts(image: np.ndarray, canvas: Canvas, stream: Stream, parts: tuple[Part, ...], pose: tuple, look: Look
               ) -> None:
    """Paint ``parts`` over ``image`` in place."""
    u, v, scale = pose
    filled = (look.style != SKETCHED).astype(np.float32)[:, None, None]
    lined = look.style != FILLED
    sketched = (look.style == SKETCHED)[:, None, None, None]
    pen = np.where(sketched, as_image(look.body * np.float32(.45)), as_image(np.array(INK))).astype(np.float32)
    for part in parts:
        distance = canvas.to_pixels(SHAPES[part.shape](u, v, *part.numbers), scale)
        paint(image, _part_colour(stream, part, look), np.clip(np.float32(.5) - distance, 0, 1) * filled)
        if lined.any():
            line = np.clip(1 - np.abs(distance[lined]), 0, 1)
            image[lined] += (pen[lined] - image[lined]) * line[:, None]


def _part_colour(stream: Stream, part: Part, look: Look) -> np.ndarray:
    if part.colour == "accent":
        colour = as_image(look.accent)
    elif part.colour == "body":
        colour = as_image(look.body)
        if look.coat is not None:
            colour = colour + (as_image(look.accent) - colour) * look.coat[:, None]
    else:
        colour = jitter(stream, COLOURS[part.colour], .04)
    return np.clip(colour * look.shade[:, None], 0, 1)


def draw_each(image: np.ndarray, canvas: Canvas, stream: Stream, names: np.ndarray, pose: tuple, look: Look,
              program: Callable[[str], tuple[Part, ...]] = lambda name: icons()[name].parts) -> None:
    """Paint ``program(names[i])``, an icon's parts unless told otherwise, over picture i, in place."""
    u, v, scale = pose
    for name, index in grouped(names):
        part = image[index]
        draw_parts(part, canvas, stream[index], program(name), (u[index], v[index], scale[index]), look[index])
        image[index] = part


def body_colours(stream: Stream, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A colour that each icon may take: names [n] and colours [n, 3]."""
    chosen = np.empty(len(names), dtype=object)
    for name, index in grouped(names):
        chosen[index] = stream[index].choice(icons()[name].colours)
    return chosen, np.clip(named_colours(chosen) + stream.fork("shift").normal(.06, 3), 0, 1)
