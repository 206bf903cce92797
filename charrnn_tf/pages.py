"""Self-contained HTML pages: one file that needs no network, with its scripts and styles inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = "assets"
STYLE = "page.css"


def render(room: str | None, template: str, scripts: Sequence[str], **values: Any) -> str:
    """Fill in a room's template, with scripts of ours inlined in this order; values are text, never markup.

    The content security policy allows only these scripts and styles, and pictures inside the page.
    """
    from markupsafe import Markup

    script, style = ("\n".join(source(room, name) for name in names) for names in (scripts, [STYLE]))
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_sum(script)}'; style-src '{_sum(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return str(_environment(room).get_template(template).render(
        policy=policy, script=Markup(script), style=Markup(style), **values
    ))  # fmt: skip


def source(room: str | None, name: str) -> str:
    """A script, style or template: of the room, or one that rooms share."""
    own, shared = (resources.files(str(package)) / FOLDER / name for package in (room, __package__))
    return (own if own.is_file() else shared).read_text(encoding="utf-8")


def packed(numbers: npt.NDArray[Any]) -> str:
    """Encode numbers as base64 of their little-endian bytes; `numbers.js` decodes them."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def picture(svg: str) -> str:
    """An `<svg>` element as a data URL for an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _sum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment(room: str | None) -> Any:
    import jinja2

    loader = jinja2.FunctionLoader(partial(source, room))
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
