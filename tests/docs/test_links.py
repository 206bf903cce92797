"""Links of the documentation lead somewhere, and the files it names exist."""

import re

import pytest
from documents import PAGES, ROOT, inline, prose

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?:charrnn_tf|tests|docs|\.ci)/[\w./-]*\w")


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_a_page_and_a_heading(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_repository_that_a_page_names_exist(page):
    for code in inline(page):
        for name in FILE.findall(code):
            assert (ROOT / name).exists(), name


def test_readme_links_to_every_page():
    linked = set(LINK.findall(prose("README.md")))
    assert {page for page in PAGES if page != "README.md"} <= linked


def test_readme_has_at_most_200_lines():
    assert PAGES["README.md"].count("\n") <= 200


def files_by_room():
    """{room: (files that README's tree lists, files that development.md's table lists)}."""
    tree = PAGES["README.md"].partition("## Source tree")[2].partition("```text\n")[2].partition("```")[0]
    listed = dict(re.findall(r"^  (\w+)/ +([^:\n]*)", tree, re.MULTILINE))
    table = dict(re.findall(r"^\| `(\w+)/` \| ([^|]*) \|", PAGES["docs/development.md"], re.MULTILINE))
    assert listed.keys() == table.keys()
    return {room: (listed[room], table[room]) for room in listed}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / "charrnn_tf").glob("*/__init__.py")))
def test_readme_and_development_list_the_files_of_a_room(room):
    files = {path.stem for path in (ROOT / "charrnn_tf" / room).glob("*.py")} - {"__init__"}
    for listed in files_by_room()[room]:
        assert set(re.findall(r"\w+", listed)) == files or "one file" in listed
