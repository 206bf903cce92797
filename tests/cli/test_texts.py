"""`charrnn-tf corpus`."""

import json

import pytest
from commandline import refuse, succeed

from charrnn_tf.text import catalog

UNREACHABLE = "http://127.0.0.1:9/anna.txt"


def test_corpus_list_names_every_text():
    rows = json.loads(succeed("corpus", "list", "--json"))
    assert [row["name"] for row in rows] == list(catalog.CORPORA)
    assert set(rows[0]) == {"name", "url", "sha256", "size", "about", "cr_sha256"}
    printed = succeed("corpus", "list")
    for row in rows:
        assert f"{row['name']:<16} {row['size'] / 1e6:>5.1f} MB  {row['about']}\n" in printed
        assert row["url"] in printed


def test_corpus_fetch_prints_the_path(monkeypatch):
    asked = []

    def fetch(name, directory, url=None, progress=None):
        progress(1, 2)
        asked.append((name, directory, url))
        return f"{directory}/{name}.txt"

    monkeypatch.setattr(catalog, "fetch_corpus", fetch)
    assert succeed("corpus", "fetch", "anna") == "data/anna.txt\n"
    assert succeed("corpus", "fetch", "anna", "--directory", "texts", "--url", UNREACHABLE) == "texts/anna.txt\n"
    assert asked == [("anna", "data", None), ("anna", "texts", UNREACHABLE)]


@pytest.mark.parametrize(("arguments", "message"), [(("anne",), "'anne'"), (("anna", "--url", UNREACHABLE), UNREACHABLE)])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(empty, arguments, message):
    assert message in refuse("corpus", "fetch", *arguments)
