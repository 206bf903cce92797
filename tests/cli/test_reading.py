"""Texts as people have them, on the command line: what is left out, other encodings, escapes, and many files."""

import pytest
from commandline import RUN, TINY, call, refuse

JAPANESE = "日月火水木金土 " * 200  # 1,400 of 1,600 characters are not ASCII


def train(*arguments):
    return call("train", *arguments, *TINY, *RUN, "--max-steps", 4)


def test_a_preset_does_not_learn_only_the_spaces_of_a_text(empty, instant, caplog):
    (empty / "japanese.txt").write_text(JAPANESE, encoding="utf-8")
    sherlock = ("japanese.txt", "--preset", "sherlock", "--limit-chars", 1600)
    message = refuse("train", *sherlock)
    assert "'japanese.txt': 1,400 of 1,600 characters (87.5%) are left out, most often '土' (U+571F) 200 times" in message
    assert "or pass --unknown skip to leave them out all the same." in message
    told = train(*sherlock, "--unknown", "skip")
    assert told.exit_code == 0
    assert "Warning: 'japanese.txt': 1,400 of 1,600 characters (87.5%) are left out" in caplog.text
    assert "Text: 200 of 1,600 characters, 100 distinct" in told.stderr
    assert call("train", "--resume", "--max-steps", 4, "--quiet").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_what_evaluate_leaves_out_is_told(reading, write, caplog, options):
    few = write("The cat runs. " * 40 + "日本")
    told = call("evaluate", few, "--unknown", "skip", *options)
    assert told.stderr == "2 of 562 characters (0.4%) are left out, '日' (U+65E5) 1 times, '本' (U+672C) 1 times.\n"
    many = write("The 日本", f"many{len(options)}.txt")
    assert call("evaluate", many, "--unknown", "skip", *options).exit_code == 0
    assert "2 of 6 characters (33.3%) are left out" in caplog.text
