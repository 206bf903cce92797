"""Commands in the documentation: each exists with its options and runs; every command and option is described."""

import gzip
import re
import shutil

import pytest
from commandline import TEXT, TINY, call, every_command, succeed
from commands import PAGE, render
from documents import PAGES, REFERENCE, blocks, commands, inline

from charrnn_tf.cli.main import cli
from charrnn_tf.formats.importing import read_vocabulary
from charrnn_tf.settings.merge import merge, read_settings
from charrnn_tf.text import catalog

COMMANDS = dict(every_command())
FLAGS = {name: {flag for option in command.params for flag in option.opts} for name, command in COMMANDS.items()}
OTHERS = {  # options of other programs that pages mention in running text
    "--start", "--max_new_tokens", "--top_k",  # nanoGPT
    "--runs", "--text", "--append", "--characters", "--calculate", "--step",  # tests/benchmarks
}  # fmt: skip


def split(words):
    """(name, arguments) of a command line."""
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    return name, words[len(name.split()) :]


def test_the_reference_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python tests/docs/commands.py"


@pytest.mark.parametrize("page", PAGES)
def test_options_in_running_text_exist(page):
    everywhere = set().union(*FLAGS.values()) | OTHERS | {"--help", "--version"}
    for code in inline(page):
        words = code.removeprefix("charrnn-tf ").split()
        name, _ = split(words)
        if name in FLAGS or words[0].startswith("--"):
            assert set(re.findall(r"(?<!\S)--[a-z][\w-]*\w(?![\w-])", code)) <= FLAGS.get(name, everywhere), code
        else:
            assert not code.startswith("charrnn-tf ") or name in cli.commands, code


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_described_outside_the_reference(name):
    pages = [text for page, text in PAGES.items() if page != REFERENCE and re.search(rf"(charrnn-tf |`){name}\b", text)]
    assert pages, f"no page describes {name}"
    for flag in FLAGS[name]:
        if flag.startswith("--"):
            assert any(re.search(rf"{flag}(?![\w-])", text) for text in pages), f"no page describes {flag} of {name}"


@pytest.mark.parametrize(("page", "words"), commands(), ids=[" ".join(words) for _, words in commands()])
def test_a_command_in_a_block_is_valid(page, words):
    name, arguments = split(words)
    assert name in COMMANDS, page
    with cli.make_context("charrnn-tf", words, resilient_parsing=True) as group:
        COMMANDS[name].make_context(name, arguments, group)


# Added to commands, by their first words, so that they end in seconds
SHORTER = {
    "train --resume": ("--max-steps", 9),
    "train": ("--hidden-size", 8, "--batch-size", 2, "--max-steps", 2),
    "sample": ("--length", 20, "--unknown", "skip"),
    "report": ("--limit-chars", 20),
}
NOT_RUN = (  # need minutes, several machines, or a file of TensorFlow 1, or do not end
    "benchmark", "serve", "multiworker", "notebook/i3960_l512.ckpt",
)  # fmt: skip
TEXTS = ("my", "anna", "data/anna", "other", "chapter", "notes", "mine", "opening", "books/a", "songs/b", "names", "roman")
RUNS = ("mine", "on-gpu", "anna", "old", "window-25", "window-100", "names", "roman")


@pytest.fixture(scope="module")
def stand_ins(home, tmp_path_factory):
    """A folder with small stand-ins for all texts, runs and models that the pages' commands read."""
    folder = tmp_path_factory.mktemp("docs")
    for name in TEXTS:
        path = folder / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXT, encoding="utf-8")
    (folder / "extra.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (folder / "tunes.mid").write_bytes(bytes(range(256)) * 20)
    (folder / "mine.toml").write_text(blocks("docs/settings.md", "toml")[0], encoding="utf-8")
    for name in ("checkpoints", *RUNS):
        shutil.copytree(home / "checkpoints", folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        patch.setenv("TF_NUM_INTEROP_THREADS", "1")
        patch.chdir(folder)
        succeed("train", "tunes.mid", "--vocabulary", "bytes", *TINY, "--max-steps", 2, "--checkpoint-dir", "tunes")
        succeed("export", "--format", "keras", "-o", "model.keras")
        succeed("export", "--format", "torch", "-o", "rnn_20_epoch.net")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("one_process", "instant")
@pytest.mark.parametrize(
    "words",
    [words for _, words in commands() if not set(NOT_RUN) & set(words)],
    ids=[" ".join(words) for _, words in commands() if not set(NOT_RUN) & set(words)],
)
def test_a_command_in_a_block_runs(stand_ins, tmp_path, monkeypatch, words):
    if "rnn_20_epoch.net" in words or "torch" in words:
        pytest.importorskip("torch")
    shutil.copytree(stand_ins, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(catalog, "fetch_corpus", lambda name, directory, **how: f"{directory}/{name}.txt")
    monkeypatch.setattr("charrnn_tf.insight.report.TEMPERATURES", (1.0,))
    for beginning, arguments in SHORTER.items():
        if " ".join(words).startswith(beginning):
            shape = ("--hidden-size", 8) if "--init-from" in words else ()  # fixed by the other model
            words = [*words, *(argument for argument in arguments if argument not in shape)]
            break
    if words[0] in ("train", "import") and not {"--resume", "--overwrite"} & set(words):
        folder = words[words.index("--checkpoint-dir") + 1] if "--checkpoint-dir" in words else "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
    result = call(*words, stdin=TEXT if "-" in words else "")
    assert result.exit_code == 0, (result.stderr, result.exception)


def test_the_settings_file_in_settings_is_valid(tmp_path):
    for block in blocks("docs/settings.md", "toml"):
        path = tmp_path / "mine.toml"
        path.write_text(block, encoding="utf-8")
        settings = read_settings(path)
        assert merge(settings.pop("preset"), settings, {}).settings["hidden_size"] == 256


def test_the_vocabulary_file_in_other_tools_is_valid(tmp_path):
    (block,) = blocks("docs/other-tools.md", "json")
    path = tmp_path / "vocabulary.json"
    path.write_text(block, encoding="utf-8")
    assert read_vocabulary(path).characters == "\n !ab"


def test_readme_begins_with_one_command_that_trains_and_one_that_tests():
    first, second = blocks("README.md", "sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "charrnn-tf train" in first
    assert "pytest" in second


@pytest.mark.parametrize("name", cli.commands)
def test_readme_shows_every_command(name):
    assert f"charrnn-tf {name}" in PAGES["README.md"]


def test_stand_ins_are_files_and_runs_that_commands_read():
    said = {word for _, words in commands() for word in words}
    assert {f"{name}.txt" for name in TEXTS if name[-2] != "/"} <= said
    assert set(RUNS) <= said
