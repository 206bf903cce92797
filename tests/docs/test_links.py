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


def test_readmes_source_tree_names_every_room_and_file():
    tree = PAGES["README.md"].partition("## Source tree")[2].partition("```text\n")[2].partition("```")[0]
    for room in sorted(path.parent for path in (ROOT / "charrnn_tf").glob("*/__init__.py")):
        (line,) = re.findall(rf"^  {room.name}/ +(.*)$", tree, re.MULTILINE)
        listed = set(re.findall(r"\w+", line.partition(":")[0]))
        files = {path.stem for path in room.glob("*.py")} - {"__init__"}
        assert files <= listed or "one file per" in line, (room.name, files - listed)
