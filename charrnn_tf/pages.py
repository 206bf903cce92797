"""Self-contained HTML pages: one file that needs no network, with its scripts and styles inside."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt


def render(room: str, template: str, scripts: Sequence[str], **values: Any) -> str:
    """Fill in a template from the `assets` of a room, given as a package name, with scripts inlined in this order.

    Values are text, never markup. The content security policy allows only these scripts and styles, and inlined images.
    """
    from markupsafe import Markup

    script, style = ("\n".join(source(room, name) for name in names) for names in (scripts, ["page.css"]))
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    page = _environment(room).get_template(template)
    return str(page.render(policy=policy, script=Markup(script), style=Markup(style), **values))


def source(room: str, name: str) -> str:
    """Read a script, style or template of a room, or one that all rooms share."""
    own, shared = (resources.files(package) / "assets" / name for package in (room, __package__))
    return (own if own.is_file() else shared).read_text(encoding="utf-8")


def packed(numbers: npt.NDArray[Any]) -> str:
    """Encode numbers as base64 of their little-endian bytes; `numbers.js` decodes them."""
    little = numbers.astype(numbers.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def picture(svg: str) -> str:
    """An `<svg>` element as a data URL for an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _hash(text: str) -> str:
    """A source expression of a content security policy that allows exactly this script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _environment(room: str) -> Any:
    import jinja2

    loader = jinja2.FunctionLoader(partial(source, room))
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
