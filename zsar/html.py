"""Templates filled in: everything that comes from data is escaped."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jinja2


def renderer(folder: Path) -> Callable[..., str]:
    """A function from the name of a template in ``folder``, and its values by name, to the text."""
    @cache
    def templates() -> jinja2.Environment:
        return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True,
                                  lstrip_blocks=True, undefined=jinja2.StrictUndefined)

    def render(template: str, **values: object) -> str:
        return templates().get_template(template).render(values)

    return render
