"""Pages that stand alone: one file, no network, only the scripts and styles that are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = "pages"
STYLE = "page.css"


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page by its template, with scripts of ours inlined in this order; values are text, never markup.

    Its content security policy lets nothing run or load but these scripts and styles, and pictures that it holds itself.
    """
    from markupsafe import Markup

    script, style = ("\n".join(map(source, names)) for names in (scripts, [STYLE]))
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_sum(script)}'; style-src '{_sum(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return str(_environment().get_template(template).render(
        policy=policy, script=Markup(script), style=Markup(style), **values
    ))  # fmt: skip


def source(name: str) -> str:
    """One of the package's scripts, styles or templates."""
    return (resources.files(__package__) / FOLDER / name).read_text(encoding="utf-8")


def packed(numbers: npt.NDArray[Any]) -> str:
    """Numbers as base64 of their bytes, little-endian, as a page's `numbers` reads them."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def picture(svg: str) -> str:
    """An `<svg>` element as an address that an image takes."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _sum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment() -> Any:
    import jinja2

    loader = jinja2.FunctionLoader(source)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
