"""Texts as people have them, on the command line: what is left out, other encodings, escapes, and many files."""

from pathlib import Path

import pytest
from commandline import RUN, TINY, call, refuse, succeed

from charrnn_tf.api.launch import resuming
from charrnn_tf.api.run import open_run as run_of
from charrnn_tf.cli.options import Escaped
from charrnn_tf.runs.record import read_record
from charrnn_tf.text.corpus import Source, TextRecord, load_corpus

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
    assert "Text: japanese.txt, 200 of 1,600 characters, 100 distinct" in told.stderr
    assert call("train", "--resume", "--max-steps", 4, "--quiet").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_what_evaluate_leaves_out_is_told(reading, write, caplog, options):
    few = write("The cat runs. " * 40 + "日本")
    told = call("evaluate", few, "--unknown", "skip", *options)
    assert told.stderr == "2 of 562 characters (0.4%) are left out, '日' (U+65E5) 1 time, '本' (U+672C) 1 time.\n"
    many = write("The 日本", f"many{len(options)}.txt")
    assert call("evaluate", many, "--unknown", "skip", *options).exit_code == 0
    assert "2 of 6 characters (33.3%) are left out" in caplog.text


@pytest.mark.slow
def test_the_encoding_and_form_of_a_run_are_kept(empty, instant):
    text = "Caf\u00e9 by the sea: \u20ac 5. " * 100
    (empty / "old.txt").write_bytes(text.encode("cp1252"))
    message = refuse("train", "old.txt")
    assert message.startswith(
        "Error: 'old.txt' is not UTF-8: byte 3 is 0xE9. It looks like cp1252: pass --encoding cp1252, "
    )
    told = train("old.txt", "--encoding", "windows-1252", "--normalize", "nfd")
    assert (told.exit_code, "Text: old.txt, 2,300 characters" in told.stderr) == (0, True), told.stderr
    saved = read_record("checkpoints/i4_l8").train
    assert (saved.encoding, saved.normalize) == ("cp1252", "nfd")
    for same in ((), ("--encoding", "cp1252")):
        assert call("train", "--resume", "--max-steps", 6, "--quiet", *same).exit_code == 0
    other = call("train", "--resume", "--encoding", "utf-8", "--max-steps", 6)
    assert "Error: --encoding utf-8 can't change on --resume: the run in 'checkpoints' has cp1252." in other.stderr
    assert call("evaluate", "old.txt").exit_code == 0
    (empty / "new.txt").write_text(text, encoding="utf-8")
    assert "characters the model never saw" in call("evaluate", "new.txt").stderr
    assert (
        call("evaluate", "new.txt", "--encoding", "utf-8", "--json").stdout == call("evaluate", "old.txt", "--json").stdout
    )
    assert "It knows them in the form --normalize nfd." in call("evaluate", "old.txt", "--normalize", "none").stderr
    for prime in ("Caf\u00e9", "Cafe\u0301"):
        assert succeed("sample", "--prime", prime, "--length", 3, "--seed", 1).startswith("Cafe\u0301")
    (empty / "prime.txt").write_bytes("Caf\u00e9 \u20ac".encode("cp1252"))
    assert succeed("sample", "--prime-file", "prime.txt", "--length", 3, "--seed", 1).startswith("Cafe\u0301 \u20ac")
    assert "It knows them in the form --normalize nfd." in refuse("sample", "--prime", "Caf\u00e9", "--normalize", "none")
    assert "--encoding must be a text encoding" in refuse("sample", "--prime", "C", "--encoding", "nothing")
    fine = ("new.txt", "--init-from", "checkpoints", "--checkpoint-dir", "fine")
    assert train(*fine).exit_code == 0
    assert read_record("fine/i4_l8").train.normalize == "nfd"
    assert run_of("checkpoints").evaluate("old.txt") == run_of("checkpoints").evaluate("new.txt", encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (r"\n\n", "\n\n"), (r"a\tb\rc", "a\tb\rc"), (r"\x41\u00e9\u65E5", "A\u00e9\u65e5"), (r"\\n", r"\n"),
        (r"\\\n", "\\\n"),
        (r"\q \x4 \u12 \N \0 C:\dir", r"\q \x4 \u12 \N \0 C:\dir"), ("\\", "\\"), ("plain", "plain"), ("", ""),
    ],
)  # fmt: skip
def test_escapes_mean_what_they_mean_in_a_string(given, meant):
    assert Escaped().convert(given, None, None) == meant


def test_escapes_of_train_are_saved_as_characters_and_settings_of_files_stay(empty, instant):
    (empty / "run.toml").write_text(r"sample_prime = ['a\n']", encoding="utf-8")
    escapes = ("--separator", r"\n--\n", "--sample-prime", r"\n", "--sample-prime", r"\u0041")
    assert train("text.txt", *escapes).exit_code == 0
    saved = read_record("checkpoints/i4_l8").train
    assert (saved.separator, saved.sample_prime) == ("\n--\n", ("\n", "A"))
    assert train("text.txt", "--config", "run.toml", "--overwrite").exit_code == 0
    assert read_record("checkpoints/i4_l8").train.sample_prime == (r"a\n",)


def test_a_stop_and_a_prime_of_escapes(reading):
    draw = ("--length", 300, "--seed", 1, "--top-n", 0, "--temperature", 9)
    text = succeed("sample", "--prime", r"The\x20", *draw)
    assert text == succeed("sample", "--prime", "The ", *draw)
    assert text.count("\n") > 1
    ended = succeed("sample", "--prime", r"The\x20", *draw, "--stop", r"\n")
    assert ended == text.partition("\n")[0] + "\n"
    assert "'\\\\' (U+005C)" in refuse("sample", "--prime", r"The\\")


def test_a_sample_shows_the_prime_that_was_read(reading):
    run = run_of("checkpoints")
    assert run.sample("T\u65e5he ", 5, seed=1, unknown="skip") == run.sample("The ", 5, seed=1)
    assert run.sample("\u65e5", 5, seed=1, unknown="skip") == run.sample("", 5, seed=1)


@pytest.fixture
def many(empty):
    """A folder of 300 files."""
    (empty / "many").mkdir()
    for number in range(300):
        (empty / "many" / f"{number:04}.txt").write_text(f"The cat sat on mat {number}.\n", encoding="utf-8")
    return empty


@pytest.mark.slow
def test_many_files_are_listed_once_and_not_in_every_checkpoint(many, instant):
    told = train("many")
    assert "in 300 files, " in told.stderr
    (listed,) = Path("checkpoints").glob("text-*.json")
    assert f"and {listed.name} of 0." in told.stderr
    for name in ("i2_l8", "i4_l8"):
        assert (Path("checkpoints") / name / "config.json").stat().st_size < 6000
        assert len(read_record(Path("checkpoints") / name).text.sources) == 300
    assert call("train", "--resume", "--max-steps", 6, "--quiet").exit_code == 0
    assert list(Path("checkpoints").glob("text-*")) == [listed]
    listed.unlink()
    message = call("train", "--resume", "--max-steps", 8).stderr
    assert "the list of the run's 300 files, text-*.json in 'checkpoints', is missing: name the files again" in message
    assert read_record("checkpoints/i6_l8").text.title == "300 files"
    assert call("evaluate", "text.txt", "--unknown", "skip").exit_code == 0
    assert "300 files, this has" in call("train", "text.txt", "--resume", "--max-steps", 8).stderr
    assert call("train", "many", "--resume", "--max-steps", 8, "--quiet").exit_code == 0
    assert listed.exists()
    assert train("text.txt", "--overwrite").exit_code == 0
    assert not list(Path("checkpoints").glob("text-*"))


def test_a_damaged_list_of_files_is_not_used(many, instant):
    assert train("many").exit_code == 0
    (listed,) = Path("checkpoints").glob("text-*.json")
    listed.write_bytes(listed.read_bytes().replace(b"0000.txt", b"0001.txt"))
    assert read_record("checkpoints/i4_l8").text.unlisted == 300


def test_lines_about_many_files_are_short(many):
    files = sorted(map(str, (many / "many").iterdir()))
    assert len(refuse("train", *files, "--vocabulary", "printable", "--limit-chars", 3, "--max-steps", 3)) < 1000
    before = load_corpus(files).text
    shuffled = load_corpus(files[::-1]).text
    assert len(before.difference(shuffled)) < 1000
    assert len(before.title) < 1000
    assert before.title.endswith(" and 297 more")
    with_input = TextRecord((*before.sources, Source("-", "", 1)), "", 1)
    assert resuming("checkpoints", with_input) == "charrnn-tf train TEXT... --resume"
