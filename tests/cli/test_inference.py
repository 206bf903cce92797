"""`charrnn-tf sample` and `charrnn-tf evaluate`."""

import functools
import json
import math
import re
from pathlib import Path

import pytest
from commandline import TEXT, TINY, call, refuse, snapshot, succeed

from charrnn_tf.runs.find import find

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(scope="module")
def from_checkpoint():
    """`Sampler.from_checkpoint`, which compiles each checkpoint of `home` once."""
    from charrnn_tf.inference.sampling import Sampler

    return functools.cache(Sampler.from_checkpoint)


@pytest.fixture
def compiled_once(from_checkpoint, monkeypatch):
    """Let all tests with this fixture share compiled samplers."""
    monkeypatch.setattr("charrnn_tf.inference.sampling.Sampler.from_checkpoint", from_checkpoint)


def sampled(*arguments, seed=1, **how):
    """What `sample` prints, with a seed."""
    return succeed("sample", *arguments, "--seed", seed, **how)


# Sampling


@pytest.mark.usefixtures("reading", "compiled_once")
def test_sample_prints_the_prime_then_as_many_characters_as_asked():
    result = call("sample", "--prime", "The cat", "--length", 230, "--seed", 1)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("The cat")
    assert len(result.stdout) == len("The cat") + 230 + 1
    assert result.stdout.endswith("\n")
    assert set(result.stdout) <= set(TEXT)


@pytest.mark.usefixtures("reading", "compiled_once")
def test_sample_without_a_prime_prints_only_the_text():
    assert len(sampled("--length", 30)) == 31


@pytest.mark.usefixtures("reading", "compiled_once")
def test_the_same_seed_gives_the_same_text():
    first, again, other = (sampled("--length", 150, "--top-n", 0, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.usefixtures("reading", "compiled_once")
def test_without_a_seed_a_fresh_one_is_shown():
    results = [call("sample", "--length", 50) for _ in range(2)]
    seeds = [re.fullmatch(r"Seed: (\d+)\n", result.stderr)[1] for result in results]
    assert seeds[0] != seeds[1]
    assert sampled("--length", 50, seed=seeds[0]) == results[0].stdout


@pytest.mark.usefixtures("reading", "compiled_once")
def test_sample_reads_the_checkpoint_asked_for():
    arguments = ("--length", 100, "--top-n", 0)
    latest = sampled(*arguments)
    for same in ("latest", "i8_l8", Path("checkpoints/i8_l8").resolve(), "./checkpoints"):
        assert sampled("--checkpoint", same, *arguments) == latest
    best = sampled("--checkpoint", find("best", "checkpoints").name, *arguments)
    assert sampled("--checkpoint", "best", *arguments) == best
    assert sampled("--checkpoint", "i4_l8", *arguments) != latest


@pytest.mark.usefixtures("reading", "compiled_once")
def test_temperature_zero_takes_the_likeliest_with_every_seed():
    assert sampled("--length", 40, "--temperature", 0) == sampled("--length", 40, "--top-n", 1, seed=2)


@pytest.mark.usefixtures("reading", "compiled_once")
def test_several_samples_each_have_a_heading():
    arguments = ("--prime", "The ", "--length", 120)
    head, *parts = re.split(r"^(--- sample \d+ ---)\n", sampled(*arguments, "--num-samples", 3), flags=re.M)
    assert head == ""
    assert parts[0::2] == [f"--- sample {k} ---" for k in (1, 2, 3)]
    texts = parts[1::2]
    assert all(text.startswith("The ") and len(text) == 4 + 120 + 1 for text in texts)
    assert len(set(texts)) == 3
    assert texts[0] == sampled(*arguments)


@pytest.mark.parametrize("place", [(20, 23), (97, 103)])  # the second spans two chunks
@pytest.mark.usefixtures("reading", "compiled_once")
def test_stop_ends_the_text_before_the_word(place):
    arguments = ("--prime", "The ", "--length", 250, "--top-n", 0)
    text = sampled(*arguments, seed=5)[4:-1]
    word = text[slice(*place)]
    assert sampled(*arguments, "--stop", word, seed=5) == "The " + text.partition(word)[0] + "\n"
    assert sampled(*arguments, "--stop", "never there", seed=5) == f"The {text}\n"


@pytest.mark.usefixtures("reading", "compiled_once")
def test_every_sample_stops_on_its_own():
    arguments = ("--length", 150, "--num-samples", 2)
    _, first, second = re.split(r"--- sample \d ---\n", sampled(*arguments, seed=5))
    word = first[60:64]
    stopped = sampled(*arguments, "--stop", word, seed=5)
    assert stopped == "".join(f"--- sample {k} ---\n{t[:-1].partition(word)[0]}\n" for k, t in ((1, first), (2, second)))


def test_sample_output_writes_the_file_and_prints_nothing(copy):
    arguments = ("--prime", "The ", "--length", 120, "--num-samples", 2)
    expected = sampled(*arguments)
    Path("out.txt").write_text("an older text", encoding="utf-8")
    for option in ("--output", "-o"):
        before = set(snapshot())
        assert sampled(*arguments, option, "out.txt") == ""
        assert Path("out.txt").read_bytes().decode() == expected
        assert set(snapshot()) == before


@pytest.mark.usefixtures("reading", "compiled_once")
def test_the_prime_may_come_from_a_file_or_standard_input(tmp_path):
    prime = tmp_path / "prime.txt"
    prime.write_text("The cat\nand the ", encoding="utf-8")
    expected = sampled("--prime", "The cat\nand the ", "--length", 20)
    assert sampled("--prime-file", prime, "--length", 20) == expected
    assert sampled("--prime-file", "-", "--length", 20, stdin="The cat\nand the ") == expected


@pytest.mark.usefixtures("reading", "compiled_once")
def test_unknown_characters_of_the_prime_are_refused_or_skipped():
    assert refuse("sample", "--prime", "The é…", "--seed", 1) == (
        "Error: --prime has characters the model never saw: 'é' (U+00E9), '…' (U+2026). Leave them out, or use --unknown "
        "skip.\n"
    )
    skipped = sampled("--prime", "The é…", "--unknown", "skip", "--length", 20)
    assert skipped == sampled("--prime", "The ", "--length", 20)


@pytest.mark.usefixtures("reading", "compiled_once")
def test_interactive_answers_line_by_line():
    result = call("sample", "--interactive", "--length", 20, "--seed", 5, stdin="The \n☃\nand the\n\n")
    answers = [("The ", 5), ("and the", 6), ("", 7)]
    assert (result.exit_code, result.stdout) == (
        0, "".join(sampled("--prime", prime, "--length", 20, seed=seed) for prime, seed in answers)
    )  # fmt: skip
    assert result.stderr.count("Prime (end with Ctrl-D): ") == 5
    assert "Error: characters the model never saw: '☃' (U+2603)" in result.stderr


@pytest.mark.usefixtures("reading", "compiled_once")
def test_interactive_takes_a_last_line_without_a_newline():
    expected = sampled("--prime", "and", "--length", 20, seed=5)
    assert sampled("--interactive", "--length", 20, seed=5, stdin="and") == expected


# Many primes


@pytest.mark.usefixtures("reading", "compiled_once")
def test_primes_of_a_file_each_give_their_own_texts(tmp_path):
    primes = tmp_path / "primes.txt"
    primes.write_bytes(b"The cat\r\n\nand the ")
    arguments = ("--length", 30, "--num-samples", 2)
    printed = sampled("--primes", primes, *arguments)
    assert sampled("--primes", "-", *arguments, stdin="The cat\n\nand the ") == printed
    expected = ""
    for number, prime in enumerate(("The cat", "", "and the "), 1):
        alone = sampled("--prime", prime, *arguments)
        expected += alone.replace("--- sample", f"--- prime {number}, sample")
    assert printed == expected
    single = sampled("--primes", "-", "--length", 30, stdin="and")
    assert single == "--- prime 1 ---\n" + sampled("--prime", "and", "--length", 30)


@pytest.mark.usefixtures("reading", "compiled_once")
def test_json_is_an_object_for_each_text(tmp_path):
    printed = sampled("--primes", "-", "--json", "--length", 40, "--num-samples", 2, "--stop", ".", stdin="The \nand")
    objects = [json.loads(line) for line in printed.splitlines()]
    assert [(each["prime"], each["sample"]) for each in objects] == [("The ", 1), ("The ", 2), ("and", 1), ("and", 2)]
    for each in objects:
        assert list(each) == ["prime", "text", "seed", "sample", "nats_per_character"]
        assert each["seed"] == 1
        assert each["nats_per_character"] > 0
    (one,) = sampled("--prime", "The ", "--json", "--length", 40, "--stop", ".").splitlines()
    assert json.loads(one)["text"] == objects[0]["text"]
    assert f"The {objects[0]['text']}\n" == sampled("--prime", "The ", "--length", 40, "--stop", ".")


def test_json_of_samples_goes_to_the_output_file(copy):
    arguments = ("--json", "--length", 10, "--num-samples", 2)
    expected = sampled(*arguments)
    assert sampled(*arguments, "-o", "out.jsonl") == ""
    assert Path("out.jsonl").read_text(encoding="utf-8") == expected


@pytest.mark.usefixtures("reading")
def test_an_unknown_character_names_its_line_of_the_primes():
    arguments = ("sample", "--seed", 1, "--primes", "-")
    assert refuse(*arguments, stdin="The\nThe é\n") == (
        "Error: line 2 of '-' has characters the model never saw: 'é' (U+00E9). Leave them out, or use --unknown skip.\n"
    )
    assert refuse(*arguments, stdin="") == "Error: '-' is empty: write a prime on each line\n"


@pytest.mark.slow
def test_the_largest_seed_works_everywhere(empty):
    seed = 2**63 - 1
    succeed("train", "text.txt", *TINY, "--max-steps", 2, "--seed", seed, "--sample-every", 2, "--sample-length", 5)
    assert len(sampled("--length", 5, seed=seed)) == 6
    assert len(sampled("--length", 5, "--interactive", seed=seed, stdin="The\nThe\n")) == 2 * (3 + 5 + 1)


# Scoring


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_prints_a_line_or_json():
    plain = succeed("evaluate", "text.txt")
    numbers = json.loads(succeed("evaluate", "text.txt", "--json"))
    assert list(numbers) == ["nats_per_character", "bits_per_character", "perplexity", "characters"]
    nats = numbers["nats_per_character"]
    assert numbers["characters"] == len(TEXT) - 1
    assert numbers["bits_per_character"] == pytest.approx(nats / math.log(2))
    assert numbers["perplexity"] == pytest.approx(math.exp(nats))
    assert plain == (
        f"{nats:.4f} nats per character ({nats / math.log(2):.4f} bits, perplexity {math.exp(nats):.3f}) over "
        f"{len(TEXT) - 1:,} characters\n"
    )


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_in_cold_windows():
    whole, alike, cold = (
        json.loads(succeed("evaluate", "text.txt", "--json", *more)) for more in ((), ("--window", 10**6), ("--window", 5))
    )
    assert alike["nats_per_character"] == pytest.approx(whole["nats_per_character"], abs=1e-6)
    assert cold["characters"] == whole["characters"]
    assert cold["nats_per_character"] != pytest.approx(whole["nats_per_character"], abs=1e-3)


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_reads_standard_input_and_skips_the_unknown(tmp_path):
    expected = succeed("evaluate", "-", "--json", stdin="The cat and the dog")
    other = tmp_path / "other.txt"
    other.write_text("The c☃at and the… dog", encoding="utf-8")
    refuse("evaluate", other)
    assert succeed("evaluate", other, "--unknown", "skip", "--json") == expected
    assert json.loads(expected)["characters"] == len("The cat and the dog") - 1
    assert succeed("evaluate", "-", "--json", "--checkpoint", "i4_l8", stdin="The cat and the dog") != expected


LINES = ["The cat", "", "the dog runs\tslowly", "house."]


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_scores_each_line(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(LINES).replace("\t", " "), encoding="utf-8")
    objects = [json.loads(line) for line in succeed("evaluate", file, "--lines", "--json").splitlines()]
    for line, each in zip(LINES, objects, strict=True):
        assert list(each) == ["nats", "characters", "perplexity", "text"]
        assert each["text"] == line.replace("\t", " ")
        assert each["characters"] == len(line)
        if line:
            alone = json.loads(succeed("evaluate", "-", "--json", stdin=f"\n{each['text']}"))
            assert each["nats"] == pytest.approx(alone["nats_per_character"] * alone["characters"], abs=1e-4)
            assert each["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-4)
    rows = [line.split("\t") for line in succeed("evaluate", file, "--lines").splitlines()]
    assert rows == [
        [f"{each['nats']:.4f}", str(each["characters"]), f"{each['perplexity']:.3f}", each["text"]] for each in objects
    ]
    assert rows[1] == ["0.0000", "0", "1.000", ""]


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_scores_lines_of_standard_input_with_their_newlines():
    plain, ended = (succeed("evaluate", "-", "--lines", *more, stdin="and\nthe") for more in ((), ("--with-newline",)))
    counts = [[int(row.split("\t")[1]) for row in printed.splitlines()] for printed in (plain, ended)]
    assert counts == [[3, 3], [4, 4]]
    assert succeed("evaluate", "-", "--lines", stdin="") == ""


@pytest.mark.usefixtures("reading", "compiled_once")
def test_evaluate_names_the_line_with_unknown_characters_or_says_what_was_skipped():
    assert refuse("evaluate", "-", "--lines", stdin="and\nthé\n") == (
        "Error: line 2 of '-' has characters the model never saw: 'é' (U+00E9). Leave them out, or use --unknown skip.\n"
    )
    result = call("evaluate", "-", "--lines", "--unknown", "skip", stdin="and the house by night\nthé\n")
    assert (result.exit_code, [row.split("\t")[1::2] for row in result.stdout.splitlines()]) == (
        0, [["22", "and the house by night"], ["2", "thé"]],
    )  # fmt: skip
    assert result.stderr == "1 of 25 characters (4.0%) are left out, 'é' (U+00E9) 1 time.\n"


# Mistakes


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample", "no checkpoints in 'checkpoints': no such file or directory. Train one with: charrnn-tf train FILE"),
        ("sample --checkpoint-dir folder", "no checkpoints in 'folder'"),
        ("sample --checkpoint-dir text.txt", "no checkpoints in 'text.txt': not a directory"),
        ("sample --checkpoint-dir RUN --checkpoint i300_l8", "no checkpoint 'i300_l8' in 'RUN'; found: latest, best, i"),
        ("sample --checkpoint-dir RUN --checkpoint text.txt", "no checkpoint 'text.txt'"),
        ("sample --checkpoint-dir RUN --checkpoint folder", "no checkpoint 'folder'"),
        ("sample --checkpoint-dir RUN/i8_l8", "'RUN/i8_l8' is a checkpoint; its run's folder is 'RUN'"),
        ("sample --checkpoint-dir RUN --checkpoint " + "x" * 300, "no checkpoint 'xxx"),
        ("sample --checkpoint-dir RUN --prime ☃", "'☃' (U+2603)"),
        ("sample --checkpoint-dir RUN --prime-file missing.txt", "Error: can't read 'missing.txt'"),
        ("sample --checkpoint-dir RUN --prime-file latin.txt", "is not UTF-8"),
        ("sample --checkpoint-dir RUN --prime The --top-p 0", "--top-p must be"),
        ("sample --checkpoint-dir RUN --prime The --temperature -1", "--temperature must be"),
        ("sample --checkpoint-dir RUN --prime The --temperature nan", "--temperature must be"),
        ("sample --checkpoint-dir RUN --output missing/out.txt", "can't write 'missing/out.txt': no such file or directory"),
        ("sample --checkpoint-dir RUN --output folder", "can't write 'folder': is a directory"),
        ("sample --checkpoint-dir RUN --output text.txt/out.txt", "can't write 'text.txt/out.txt': not a directory"),
        ("sample --checkpoint-dir RUN --output .", "can't write '.': is a directory"),
        ("sample --checkpoint-dir RUN --output full", "can't write 'full': no space left on device"),
        ("sample --checkpoint-dir RUN --output out.txt --temperature -1", "--temperature must be"),
        ("evaluate text.txt", "no checkpoints in 'checkpoints'"),
        ("evaluate missing.txt --checkpoint-dir RUN", "can't read 'missing.txt'"),
        ("evaluate empty.txt --checkpoint-dir RUN", "'empty.txt' is empty"),
        ("evaluate one.txt --checkpoint-dir RUN", "fewer than two characters"),
        ("evaluate folder --checkpoint-dir RUN", "can't read 'folder': the folder holds no files"),
        ("evaluate latin.txt --checkpoint-dir RUN", "is not UTF-8"),
        ("evaluate snow.txt --checkpoint-dir RUN", "'☃' (U+2603)"),
        ("evaluate missing.txt --lines --checkpoint-dir RUN", "can't read 'missing.txt'"),
        ("evaluate latin.txt --lines --checkpoint-dir RUN", "is not UTF-8"),
        ("sample --checkpoint-dir RUN --primes missing.txt", "can't read 'missing.txt'"),
        (
            "sample --checkpoint-dir RUN --primes short.txt --min-p 2",
            "--min-p must be a number from 0 (no cut) to 1, got 2.0",
        ),
        ("evaluate snow.txt --checkpoint-dir RUN --unknown skip", "has no character of the vocabulary"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(odd_files, home, command, message):
    run = str(home / "checkpoints")
    seed = ("--seed", 1) if command.startswith("sample") else ()
    assert message.replace("RUN", run) in refuse(*command.replace("RUN", run).split(), *seed, stdin="")
    assert Path("full").is_symlink()
