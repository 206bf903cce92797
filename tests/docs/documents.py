"""The documentation's pages, and the blocks and commands in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in
         [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}  # fmt: skip
REFERENCE = "docs/commands.md"  # generated


def blocks(page, language):
    """The contents of a page's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def inline(page):
    """A page's inline code."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands():
    """(page, words) of each `charrnn-tf` command in the pages' sh blocks, without repetitions.

    A `$(...)` counts as a command of its own, whose output is data/anna.txt.
    """
    found = {}
    for page in PAGES:
        for line in "".join(blocks(page, "sh")).splitlines():
            inner = re.findall(r"\$\((.*?)\)", line)
            for part in [*re.split(r"&&|\|", re.sub(r"\$\(.*?\)", "data/anna.txt", line)), *inner]:
                words = shlex.split(part, comments=True)
                if words and words[0].endswith("charrnn-tf"):
                    found.setdefault(tuple(words[1:]), page)
    return [(page, list(words)) for words, page in found.items()]
