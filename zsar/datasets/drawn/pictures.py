"""Pictures of things: everyday objects, pets, flowers, food, cars and aircraft.

Every painter takes (canvas, stream, class names [n]) and gives images [n, 3, S, S] that ``camera.photograph`` finishes.
"""

from dataclasses import dataclass

import numpy as np

from zsar.datasets.drawn.backgrounds import BACKGROUNDS, backgrounds
from zsar.datasets.drawn.canvas import (
    COLOURS,
    Canvas,
    as_image,
    each,
    grouped,
    jitter,
    named_colours,
    paint,
    ramp,
    soft,
)
from zsar.datasets.drawn.icons import (
    FILLED,
    OUTLINED,
    SHAPES,
    SKETCHED,
    Look,
    body_colours,
    draw_each,
    draw_parts,
    parse,
)
from zsar.datasets.drawn.randomness import Stream


@dataclass(frozen=True)
class Manner:
    """How a task shows its objects: grounds, share of filled / outlined / sketched, size, turn, shift and clutter."""

    grounds: tuple[str, ...] = tuple(BACKGROUNDS)
    styles: tuple[float, float, float] = (.75, .25, 0.)
    scale: tuple[float, float] = (.7, .95)
    turn: float = .2
    shift: float = .3
    clutter: int = 0


def shading(canvas: Canvas, stream: Stream, depth: float = .35) -> np.ndarray:
    """Soft light and shadow [n, S, S], about 1."""
    return 1 + (canvas.clouds(stream) - np.float32(.5)) * np.float32(depth)


def accent_for(body: np.ndarray) -> np.ndarray:
    """A second colour that can be told from ``body``: darker for light bodies, lighter for dark ones."""
    light = body.mean(1, keepdims=True) > .45
    return np.clip(np.where(light, body * np.float32(.45), body + np.float32(.4)), 0, 1).astype(np.float32)


def scatter(image: np.ndarray, canvas: Canvas, stream: Stream, count: int) -> None:
    """Strew ``count`` small coloured scraps over each picture."""
    scraps = parse("ellipse body 0 0 .8 .6\nbox body 0 0 .7 .5\npolygon body 0 -.8 -.7 .6 .7 .6")
    for i in range(count):
        part = scraps[i % len(scraps)]
        u, v, scale = canvas.pose(stream, (.1, .25), 1.5, .9)
        u, v = u + each(stream.normal(2.5)), v + each(stream.normal(2.5))
        distance = canvas.to_pixels(SHAPES[part.shape](u, v, *part.numbers), scale)
        paint(image, as_image(stream.uniform(0, 1, 3)), np.clip(.5 - distance, 0, 1) * np.float32(.75))


@dataclass
class Described:
    """What a caption may say of each picture; None where there is nothing to say."""

    colour: np.ndarray
    ground: np.ndarray
    sketched: np.ndarray


def objects(canvas: Canvas, stream: Stream, names: np.ndarray, manner: Manner) -> np.ndarray:
    """Images of the icons ``names``."""
    return described_objects(canvas, stream, names, manner)[0]


def described_objects(canvas: Canvas, stream: Stream, names: np.ndarray, manner: Manner
                      ) -> tuple[np.ndarray, Described]:
    """Icons on grounds, and what a caption may say of them."""
    grounds = stream.choice(manner.grounds)
    style = stream.choice((FILLED, OUTLINED, SKETCHED), manner.styles).astype(np.int64)
    on_paper = (style == SKETCHED) & stream.chance(.7)
    image = backgrounds(canvas, stream.fork("ground"), grounds)
    paper = stream.fork("paper")[on_paper]
    image[on_paper] = (.9 - .1 * canvas.clouds(paper))[:, None]
    if manner.clutter:
        scatter(image, canvas, stream.fork("clutter"), manner.clutter)
    colour, body = body_colours(stream.fork("body"), names)
    other = named_colours(stream.choice(tuple(COLOURS)))
    accent = (.6 * other + .36 * (1 - body)).astype(np.float32)
    u, v, scale = canvas.pose(stream, manner.scale, manner.turn, manner.shift)
    light = each(stream.uniform(0, .11))
    shade = shading(canvas, stream) - light * (u + v)
    draw_each(image, canvas, stream.fork("icon"), names, (u, v, scale), Look(body, accent, shade, style))
    return image, Described(colour, np.where(on_paper, None, grounds), style == SKETCHED)


PETS = {f"{coat} {species}": (species, coat)
        for species in ("cat", "dog", "rabbit", "mouse") for coat in ("plain", "striped", "spotted")}


def pets(canvas: Canvas, stream: Stream, names: np.ndarray,
         grounds: tuple[str, ...] = ("grass", "wood", "plain", "sand")) -> np.ndarray:
    """Heads of four species in three coats."""
    species = np.array([PETS[name][0] for name in names], dtype=object)
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(grounds))
    _, body = body_colours(stream.fork("body"), species)
    u, v, scale = canvas.pose(stream, (.75, 1.), .2, .12)
    phase = each(stream.uniform(0, 6))
    coat = np.zeros_like(u)
    for name, index in grouped(names):
        kind = PETS[name][1]
        if kind == "striped":
            coat[index] = soft(np.sin(u[index] * 11 + .6 * np.sin(v[index] * 4 + phase[index])))
        elif kind == "spotted":
            coat[index] = soft(np.sin(u[index] * 9 + phase[index]) * np.sin(v[index] * 9 + 2 * phase[index]) - .2, 10)
    style = stream.choice((FILLED, OUTLINED), (.7, .3)).astype(np.int64)
    look = Look(body, accent_for(body), shading(canvas, stream, .3), style, coat)
    draw_each(image, canvas, stream.fork("icon"), species, (u, v, scale), look)
    return image


BLOOMS = {
    "daisy": """petals body 0 0 .6 .3 12
                ellipse accent 0 0 .22 .22""",
    "tulip": """line green 0 .5 0 1.3 .07
                ellipse body -.25 0 .3 .55
                ellipse body .25 0 .3 .55
                ellipse body 0 -.05 .25 .6""",
    "rose": """ellipse body 0 0 .62 .58
               ring black 0 0 .42 .02
               ring black .04 .03 .25 .02
               ellipse accent 0 0 .07 .07""",
    "lily": """petals body 0 0 .5 .6 6
               ellipse accent 0 0 .1 .1
               line accent 0 0 .25 .2 .02
               line accent 0 0 -.25 .2 .02""",
    "poppy": """petals body 0 0 .62 .16 4
                ellipse black 0 0 .24 .24
                ellipse yellow 0 0 .08 .08""",
    "bluebell": """line green 0 -.9 0 .9 .05
                   dome body -.35 -.2 .3 .55
                   dome body .38 .15 .3 .55
                   dome body -.25 .6 .28 .5""",
}
BLOOMS = {kind: parse(program) for kind, program in BLOOMS.items()}


def flowers(canvas: Canvas, stream: Stream, names: np.ndarray, grounds: tuple[str, ...] = ("grass",)) -> np.ndarray:
    """Flowers named "colour kind"."""
    colours = np.array([name.split()[0] for name in names], dtype=object)
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(grounds)) * np.float32(.75)
    heart = named_colours(np.where(colours == "yellow", "brown", "yellow"))
    body = np.clip(named_colours(colours) + stream.normal(.06, 3), 0, 1)
    pose = canvas.pose(stream, (.6, .95), .6, .2)
    look = Look(body, heart, shading(canvas, stream, .4), np.zeros(len(stream), np.int64))
    draw_each(image, canvas, stream.fork("bloom"), names, pose, look, lambda name: BLOOMS[name.split()[1]])
    return image


PLATE = parse("ellipse white 0 0 .98 .98\nring gray 0 0 .75 .02")


def food(canvas: Canvas, stream: Stream, names: np.ndarray,
         grounds: tuple[str, ...] = ("wood", "check", "plain")) -> np.ndarray:
    """Dishes on a plate."""
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(grounds))
    flat = np.zeros(len(stream), np.int64)
    white = np.full((len(stream), 3), .9, np.float32)
    plate = canvas.pose(stream, (.85, .98), .1, .03)
    draw_parts(image, canvas, stream.fork("plate"), PLATE, plate, Look(white, white, np.ones_like(plate[0]), flat))
    _, body = body_colours(stream.fork("body"), names)
    style = stream.choice((FILLED, OUTLINED), (.75, .25)).astype(np.int64)
    accent = named_colours(stream.choice(tuple(COLOURS)))
    pose = canvas.pose(stream, (.55, .72), .5, .06)
    draw_each(image, canvas, stream.fork("dish"), names, pose, Look(body, accent, shading(canvas, stream), style))
    return image


_WHEELS = ("\nellipse black -.48 .42 .18 .18\nellipse black .48 .42 .18 .18\nellipse gray -.48 .42 .08 .08"
           "\nellipse gray .48 .42 .08 .08\nellipse yellow .84 .2 .05 .07")
CAR_BODIES = {
    "sedan": "box body 0 .2 .85 .2\npolygon body -.55 .05 -.3 -.28 .25 -.28 .5 .05\n"
             "polygon white -.38 .02 -.22 -.2 .2 -.2 .36 .02",
    "van": "box body 0 .05 .85 .38\nbox white .62 -.1 .18 .14\nbox white .1 -.1 .22 .14",
    "pickup": "box body 0 .2 .88 .2\nbox body .2 -.1 .28 .25\nbox white .24 -.12 .18 .14",
    "coupe": "box body 0 .25 .88 .14\npolygon body -.7 .15 -.25 -.18 .2 -.18 .6 .15\n"
             "polygon white -.3 .1 -.15 -.1 .15 -.1 .32 .1",
    "wagon": "box body 0 .2 .88 .2\nbox body -.2 -.1 .62 .2\nbox white -.5 -.1 .24 .13\nbox white .08 -.1 .24 .13",
}
CAR_BODIES = {kind: parse(program + _WHEELS) for kind, program in CAR_BODIES.items()}


def cars(canvas: Canvas, stream: Stream, names: np.ndarray,
         grounds: tuple[str, ...] = ("plain", "brick", "sand")) -> np.ndarray:
    """Cars named "colour body" on a road."""
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(grounds))
    paint(image, jitter(stream, (.35, .35, .37), .07),
          np.broadcast_to(ramp(canvas.y, .35), (len(stream), canvas.size, canvas.size)))
    colours = np.array([name.split()[0] for name in names], dtype=object)
    body = np.clip(named_colours(colours) + stream.normal(.06, 3), 0, 1)
    pose = canvas.pose(stream, (.7, .98), .06, .15)
    look = Look(body, body, shading(canvas, stream), np.zeros(len(stream), np.int64))
    draw_each(image, canvas, stream.fork("car"), names, pose, look, lambda name: CAR_BODIES[name.split()[1]])
    return image


AIRCRAFT = {f"{wing} wing airplane with {engines} engines": (wing, engines)
            for wing, engines in (("straight", "two"), ("straight", "four"), ("straight", "no"), ("swept", "two"),
                                  ("swept", "four"), ("swept", "no"), ("delta", "two"), ("delta", "no"))}


def _airframe(wing: str, engines: str) -> str:
    sweep = {"straight": 0., "swept": -.3, "delta": -.55}[wing]
    lines = ["ellipse body 0 0 .9 .13"]
    for side in (1, -1):
        if wing == "delta":
            lines.append(f"polygon body -.6 0 .35 0 -.5 {.7 * side} -.62 {.7 * side}")
        else:
            tip = .8 * sweep
            lines.append(f"polygon body -.12 0 .18 0 {.1 + tip} {.75 * side} {-.05 + tip} {.75 * side}")
        lines.append(f"polygon body -.88 0 -.68 0 -.82 {.32 * side} -.92 {.32 * side}")
    lines.append("ellipse white .65 0 .09 .06")
    for y in {"no": (), "two": (.33,), "four": (.28, .52)}[engines]:
        lines += [f"ellipse black {.12 + sweep * y} {y * side} .12 .05" for side in (1, -1)]
    return "\n".join(lines)


def aircraft(canvas: Canvas, stream: Stream, names: np.ndarray, grounds: tuple[str, ...] = ("sky",)) -> np.ndarray:
    """Aeroplanes seen from above, told apart by their wings and engines."""
    image = backgrounds(canvas, stream.fork("ground"), stream.choice(grounds))
    body = named_colours(stream.choice(("white", "gray", "blue", "red")))
    pose = canvas.pose(stream, (.75, .98), .35, .1)
    look = Look(body, body, shading(canvas, stream, .3), np.zeros(len(stream), np.int64))
    draw_each(image, canvas, stream.fork("airframe"), names, pose, look, lambda name: parse(_airframe(*AIRCRAFT[name])))
    return image
