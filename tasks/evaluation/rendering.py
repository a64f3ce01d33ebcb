"""Sections of text, tables and images as one HTML page and as Markdown, by jinja2 templates.

Whatever comes from data (captions, keys, names of models) is text on the page: jinja2 escapes it.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from tasks.evaluation.thumbnails import opened, thumbnail

Cell = str | float | Image.Image | bytes | None
_EDGE = 96  # of an image in the report, in pixels


@dataclass(frozen=True)
class Table:
    """A table with a head; images are shown in HTML and left out in Markdown."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """A part of the report: a title, or none for the first, then paragraphs, then tables."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()


def as_html(title: str, sections: Sequence[Section]) -> str:
    """One file with its images inside."""
    return _environment().get_template("report.html.j2").render(title=title, sections=sections)


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """Markdown without images."""
    return _environment().get_template("report.md.j2").render(title=title, sections=sections)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("tasks.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.tests |= {"image": _is_image, "number": lambda cell: isinstance(cell, float)}
    found.filters |= {
        "data_uri": _data_uri,
        "figure": _figure,
        "inline": _inline,
        "without_images": _without_images,
    }
    return found


def _is_image(cell: Cell) -> bool:
    return isinstance(cell, Image.Image | bytes)


def _data_uri(cell: Image.Image | bytes) -> str:
    image = opened(cell) if isinstance(cell, bytes) else cell
    return f"data:image/webp;base64,{base64.b64encode(thumbnail(image, _EDGE)).decode()}"


def _figure(cell: str | float | None) -> str:
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _inline(text: str) -> Markup:
    """Text on one line that Markdown takes for nothing else: no tag, link, image, code or cell."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return Markup(re.sub(r"([\\`*\[\]|])", r"\\\1", plain))  # noqa: S704 (escaped)


def _without_images(table: Table) -> Table:
    keep = [i for i in range(len(table.head)) if not any(_is_image(row[i]) for row in table.rows)]
    return Table([table.head[i] for i in keep], [[row[i] for i in keep] for row in table.rows])
