"""Templates filled in: everything that comes from data is escaped."""

from functools import cache
from pathlib import Path

import jinja2


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                              trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def render(template: str, **values: object) -> str:
    """A template with its values."""
    return _templates().get_template(template).render(values)
