"""Counts the words of a sample that occur in its corpus, and the longest passage that it copied.

    charrnn-tf sample --length 3000 | python tests/benchmarks/words.py [--check] [TEXT]

Reads a sample from standard input. Prints the share of its words (three letters or more) that occur in TEXT (default: the
built-in corpus), the number of distinct ones, and the length of the longest verbatim copy. With --check, fails unless 80% of
the words and 100 distinct ones occur in the text, and no copy has 60 characters.
"""

import re
import sys

from charrnn_tf import load_text


def words(text: str) -> list[str]:
    """Words of three letters or more, in lower case."""
    return re.findall(r"[a-z]{3,}", text.lower())


def longest_copy(sample: str, corpus: str) -> int:
    """Length of the longest passage of the sample that occurs verbatim in the corpus."""
    longest = 0
    for begin in range(len(sample)):
        while sample[begin : begin + longest + 1] in corpus and begin + longest < len(sample):
            longest += 1
    return longest


def figures(sample: str, corpus: str | None = None) -> dict[str, float]:
    """Words of a sample, the share that occurs in the corpus, the distinct ones, and the longest verbatim copy."""
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
        "{share:.1%} of {words} words occur in the text, {distinct} distinct ones; the longest verbatim copy has {copied} "
        "characters".format(**found)
    )
    if check and (found["share"] < 0.8 or found["distinct"] < 100 or found["copied"] >= 60):
        sys.exit("not good enough")


if __name__ == "__main__":
    main()
