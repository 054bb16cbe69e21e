"""Draws the logo, a grid of grey levels with one pixel moved, beside the name: both themes, favicon and card.

``python tools/draw_logo.py`` writes ``book/_static/logo-light.svg`` and ``logo-dark.svg``, ``book/favicon.png`` and,
for the cards, ``book/card.png``. The name is drawn as outlines, so that it looks the same on every machine.
"""

from pathlib import Path

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image, ImageDraw

BOOK = Path(__file__).resolve().parent.parent / "book"
LEVELS = ((60, 105, 150), (105, 150, 195), (150, 195, 225))  # 3 x 3 grey levels, darkest at the upper left
MOVED, SHIFT = (1, 1), 4  # the pixel in the middle, moved to the lower right
ACCENT = "#e8590c"
PIXEL, STEP, MARGIN = 12, 14, 4
SIZE = 2 * MARGIN + 2 * STEP + PIXEL


def squares() -> list[tuple[int, int, str]]:
    """Left edge, upper edge and colour of each pixel; the moved one last, above the others."""
    cells = [(row, column) for row in range(3) for column in range(3)]
    cells.sort(key=lambda cell: cell == MOVED)
    found = []
    for row, column in cells:
        level, shift = LEVELS[row][column], SHIFT * ((row, column) == MOVED)
        colour = ACCENT if shift else f"#{level:02x}{level:02x}{level:02x}"
        found.append((MARGIN + STEP * column + shift, MARGIN + STEP * row + shift, colour))
    return found


def name(left: float, baseline: float) -> str:
    """The outlines of "zsar", as the data of an SVG path."""
    letters = {1: "M", 2: "L", 3: "Q", 79: "Z"}
    path = TextPath((0, 0), "zsar", size=34, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    parts = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        pairs = [] if code == 79 else points.reshape(-1, 2)
        parts.append(letters[int(code)] + " ".join(f"{left + x:.1f} {baseline - y:.1f}" for x, y in pairs))
    return "".join(parts)


def svg(ink: str) -> str:
    """The logo with its name in the given colour."""
    pixels = "\n".join(f'<rect x="{x}" y="{y}" width="{PIXEL}" height="{PIXEL}" rx="1.5" fill="{colour}"/>'
                       for x, y, colour in squares())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 148 {SIZE}" role="img" aria-label="zsar">'
    return f'{head}\n{pixels}\n<path fill="{ink}" d="{name(56, 33)}"/>\n</svg>\n'


def png(size: int) -> Image.Image:
    """The grid alone, on a transparent ground."""
    scale = 8 * size / SIZE
    image = Image.new("RGBA", (8 * size, 8 * size))
    draw = ImageDraw.Draw(image)
    for x, y, colour in squares():
        draw.rounded_rectangle([scale * x, scale * y, scale * (x + PIXEL), scale * (y + PIXEL)], 1.5 * scale, colour)
    return image.resize((size, size), Image.LANCZOS)


def main() -> None:
    """Writes the four files."""
    (BOOK / "_static/logo-light.svg").write_text(svg("#222832"), encoding="utf-8")
    (BOOK / "_static/logo-dark.svg").write_text(svg("#e6e9ee"), encoding="utf-8")
    png(64).save(BOOK / "favicon.png", optimize=True)
    png(400).save(BOOK / "card.png", optimize=True)


if __name__ == "__main__":
    main()
