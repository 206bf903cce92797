"""Self-contained pages: templates, the content security policy, and numbers for scripts."""

import base64
import hashlib
import re
import sys

import numpy as np
import pytest

from charrnn_tf import pages


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package with a template and a script."""
    assets = tmp_path / "a_room" / "assets"
    assets.mkdir(parents=True)
    (tmp_path / "a_room" / "__init__.py").write_text("")
    (assets / "own.html").write_text('{% extends "page.html" %}{% block main %}<p>{{ words }}</p>{% endblock %}')
    (assets / "own.js").write_text("const own = '</b>';")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_room"
    sys.modules.pop("a_room", None)


def test_values_are_text_and_never_markup(room):
    nasty = "<b>\"bold\"</b> 'a' & {{ 7 * 7 }} </script>"
    html = pages.render(room, "own.html", ["own.js"], title=nasty, words=nasty, data={"text": nasty})
    assert nasty not in html
    assert "<p>&lt;b&gt;&#34;bold&#34;&lt;/b&gt; &#39;a&#39; &amp; {{ 7 * 7 }} &lt;/script&gt;</p>" in html
    assert html.count("</script>") == 2  # the data's and the scripts' own ends


def test_a_missing_value_is_an_error(room):
    with pytest.raises(Exception, match="'words' is undefined"):
        pages.render(room, "own.html", [], title="a", data={})


def test_the_policy_allows_exactly_the_scripts_and_styles_of_the_page(room):
    html = pages.render(room, "own.html", ["numbers.js", "own.js"], title="a", words="b", data={})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        content = re.search(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'; " in policy
    assert html.index("function numbers") < html.index("const own")


def test_a_rooms_own_file_comes_before_a_shared_one(room, tmp_path):
    assert pages.source(room, "own.js") == "const own = '</b>';"
    assert pages.source(room, "numbers.js") == pages.source("charrnn_tf", "numbers.js")
    (tmp_path / "a_room" / "assets" / "numbers.js").write_text("mine")
    assert pages.source(room, "numbers.js") == "mine"


@pytest.mark.parametrize("order", "<>")
def test_numbers_are_packed_as_little_endian_bytes(order):
    numbers = np.array([[1, 256], [3, 4]], f"{order}u2").T
    assert base64.b64decode(pages.packed(numbers)) == b"\x01\x00\x03\x00\x00\x01\x04\x00"
