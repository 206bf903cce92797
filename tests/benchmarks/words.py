"""How much of a sampled text is words of its corpus, and how much is copied.

    charrnn-tf sample --length 3000 | python tests/benchmarks/words.py [--check] [TEXT]

Reads a sample from standard input and prints the share of its words of three letters or more that are words of the text (of
the built-in corpus where none is named), how many distinct ones there are, and its longest run copied from the text. With
--check it fails unless at least 80% are words, 100 of them distinct, and no run of 60 characters is copied.
"""

import re
import sys

from charrnn_tf import load_text


def words(text: str) -> list[str]:
    """Words of three letters or more, without regard to case."""
    return re.findall(r"[a-z]{3,}", text.lower())


def longest_copy(sample: str, corpus: str) -> int:
    """The length of the longest run of characters that the sample has from the corpus."""
    longest = 0
    for begin in range(len(sample)):
        while sample[begin : begin + longest + 1] in corpus and begin + longest < len(sample):
            longest += 1
    return longest


def figures(sample: str, corpus: str | None = None) -> dict[str, float]:
    """The share of a sample's words that are words of the corpus, how many distinct ones, and the longest copied run."""
    corpus = load_text() if corpus is None else corpus
    known, written = set(words(corpus)), words(sample)
    share = sum(word in known for word in written) / max(len(written), 1)
    return {
        "words": len(written), "share": share, "distinct": len(set(written) & known), "copied": longest_copy(sample, corpus)
    }  # fmt: skip


def main() -> None:
    """Print the figures."""
    check = "--check" in sys.argv
    found = figures(sys.stdin.read(), load_text(*(name for name in sys.argv[1:] if name != "--check")))
    print(
        "{share:.1%} of {words} words are words of the text, {distinct} distinct ones; the longest copied run has {copied} "
        "characters".format(**found)
    )
    if check and (found["share"] < 0.8 or found["distinct"] < 100 or found["copied"] >= 60):
        sys.exit("not good enough")


if __name__ == "__main__":
    main()
