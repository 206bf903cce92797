"""The built-in corpus: the prose of Python's own help text, which every installation holds."""

import re

NO_PROSE = ("::=", ">>>")  # in grammars and in sessions of the interpreter
LEAST_WORDS, LEAST_LETTERS = 8, 0.82  # of a paragraph of prose; letters and spaces as a share of its characters


def built_in_text() -> str:
    """The paragraphs of prose in `pydoc_data.topics`, each once and as one line, with an empty line between them.

    Grammars, code, tables, signatures and headings are left out: a model that has seen them samples text that can't be read.
    """
    from pydoc_data.topics import topics  # a megabyte that only this function needs

    seen: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            line = " ".join(paragraph.split())
            if is_prose(line):
                seen.setdefault(line)
    return "\n\n".join(seen) + "\n"


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph, as one line, consists of sentences."""
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        not any(mark in paragraph for mark in NO_PROSE)
        and re.match(r"[A-Z*\"“(]", paragraph) is not None
        and paragraph.endswith((".", ":", "!", "?", ")"))
        and len(re.findall(r"[A-Za-z]+", paragraph)) >= LEAST_WORDS
        and letters >= LEAST_LETTERS * len(paragraph)
    )
