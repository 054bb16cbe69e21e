"""The templates of the report."""

from pathlib import Path

from zsar.html import renderer

render = renderer(Path(__file__).parent / "templates")
