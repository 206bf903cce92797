"""`charrnn_tf.train` and `Run`: what the command does, from Python."""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_text
from gpu import stand_in

import charrnn_tf as cr
from charrnn_tf.api.train import ARGUMENTS
from charrnn_tf.cli.main import cli
from charrnn_tf.errors import CheckpointError, ConfigError, TextError
from charrnn_tf.runs.metrics import read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.schema import SETTINGS

pytestmark = pytest.mark.usefixtures("one_process")

TEXT = make_text(3000, seed=5)
TINY = {"hidden_size": 8, "batch_size": 4, "num_steps": 8, "max_steps": 12, "log_every": 4, "validate_every": 6}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, which tests must not change."""
    directory = tmp_path_factory.mktemp("finished")
    return cr.train(text=TEXT, checkpoint_dir=directory, display=False, save_every=6, **TINY)


def losses(directory):
    return [
        (row.step, row.train_loss, row.validation_loss, row.learning_rate) for row in read_rows(directory / "metrics.csv")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_run_goes_on_where_it_was_on_another_kind_of_device(tmp_path, monkeypatch, cell):
    settings = {**TINY, "cell": cell, "dropout": 0.2, "weight_dropout": 0.2, "schedule": "constant", "precision": "float32"}
    cr.train("text.txt", checkpoint_dir="whole", display=False, **settings)
    cr.train("text.txt", checkpoint_dir="moved", display=False, **settings | {"max_steps": 4})
    with monkeypatch.context() as patch:
        stand_in(patch)
        on_gpu = cr.train(checkpoint_dir="moved", resume=True, max_steps=8, display=False)
        assert read_record(on_gpu.checkpoints[-1]).in_force["gpus"] == 1
    cr.train(checkpoint_dir="moved", resume=True, max_steps=12, display=False)
    whole, moved = ({row[0]: row[1] for row in losses(tmp_path / folder)} for folder in ("whole", "moved"))
    assert list(moved) == [4, 6, 8, 12]
    assert moved == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, []),
        ({"cell": "gru", "embedding_size": 4}, ["--cell", "gru", "--embedding-size", "4"]),
        ({"preset": "notebook-tf1", "sample_every": 6}, ["--preset", "notebook-tf1", "--sample-every", "6"]),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_train_writes_the_bits_that_the_command_writes(settings, flags, tmp_path):
    run = cr.train("text.txt", checkpoint_dir="python", display=False, **TINY | settings)
    tiny = [part for name, value in TINY.items() for part in ("--" + name.replace("_", "-"), str(value))]
    cli.main(["train", "text.txt", "--checkpoint-dir", "command", "--quiet", *tiny, *flags], standalone_mode=False)
    assert losses(tmp_path / "python") == losses(tmp_path / "command")
    assert [row.step for row in run.history] == [4, 6, 8, 12] or "notebook-tf1" in settings.values()
    for own, other in zip(run.checkpoints, cr.open_run("command").checkpoints, strict=True):
        assert own.name == other.name
        weights = [cr.Sampler.from_checkpoint(path).model.get_weights() for path in (own, other)]
        assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_run_has_history_checkpoints_latest_and_best(finished):
    assert [row.step for row in finished.history] == [4, 6, 8, 12]
    assert finished.history.columns["step"] == [4, 6, 8, 12]
    assert set(finished.history.columns) == {
        "step", "epoch", "seconds", "train_loss", "validation_loss", "learning_rate", "chars_per_second",
    }  # fmt: skip
    assert finished.checkpoints == sorted(finished.checkpoints, key=lambda path: int(path.name[1:].split("_")[0]))
    assert finished.latest.name == "i12_l8"
    assert finished.best in finished.checkpoints
    assert finished.stopped is False
    assert repr(finished).startswith(f"Run({str(finished.directory)!r}, i12_l8, train loss ")


def test_a_history_becomes_a_data_frame(finished):
    import pandas

    frame = pandas.DataFrame(finished.history)
    assert list(frame.columns) == list(finished.history.columns)
    assert frame.step.tolist() == [4, 6, 8, 12]


def test_a_run_samples_evaluates_and_plots(finished, tmp_path):
    sample = finished.sample("The ", 20, seed=1, top_n=3)
    assert sample.startswith("The ")
    assert len(sample) == 24
    assert sample == finished.sample("The ", 20, seed=1, top_n=3)
    by_text = finished.evaluate(TEXT[:500])
    (tmp_path / "part.txt").write_text(TEXT[:500], encoding="utf-8")
    assert finished.evaluate("part.txt") == by_text == cr.evaluate(finished.latest, TEXT[:500])
    assert len(finished.checkpoints) == 2
    for path in finished.checkpoints:  # the sampler used last is kept, but not for another one
        assert finished.sample("The ", 20, seed=1, checkpoint=path) == cr.Sampler.from_checkpoint(path).sample(
            "The ", 20, seed=1
        )
    assert finished.plot("losses.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert finished.plot().axes


@pytest.mark.slow
def test_a_run_samples_many_primes_and_scores_lines(finished):
    texts = list(finished.sample_many(["The ", "A"], 2, 20, seed=1, top_n=3))
    assert [(each.prime, each.sample, each.seed) for each in texts] == [
        ("The ", 1, 1),
        ("The ", 2, 1),
        ("A", 1, 1),
        ("A", 2, 1),
    ]
    assert "The " + texts[0].text == finished.sample("The ", 20, seed=1, top_n=3)
    assert next(finished.sample_many(["A"], length=1)).seed != next(finished.sample_many(["A"], length=1)).seed
    lines = TEXT[:200].splitlines()
    assert list(finished.score_lines(lines)) == list(cr.score_lines(finished.latest, lines))
    assert [each.characters for each in finished.score_lines(lines, with_newline=True)] == [len(line) + 1 for line in lines]


@pytest.mark.slow
def test_a_run_exports_and_reports(finished, tmp_path):
    assert (finished.export("model") / "saved_model.pb").is_file()
    assert finished.export("model.keras", format="keras").is_file()
    assert "<html" in finished.report(TEXT[:200], "report.html").read_text(encoding="utf-8")


def test_a_run_shows_its_losses_and_a_sample(finished):
    shown = finished._repr_html_()
    assert "<svg" in shown
    assert "<pre" in shown
    assert "<td>12</td>" in finished.history._repr_html_()


def test_open_run_opens_only_what_is_a_run(finished, tmp_path):
    assert cr.open_run(finished.directory).latest == finished.latest
    with pytest.raises(CheckpointError, match="no checkpoints in 'nowhere'"):
        cr.open_run("nowhere")
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        cr.open_run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hiden_size": 8}, r"train has no argument 'hiden_size'; did you mean 'hidden_size'\?"),
        ({"chekpoint_dir": "x"}, r"train has no argument 'chekpoint_dir'; did you mean 'checkpoint_dir'\?"),
        ({"hidden_size": 0}, "`hidden_size` must be a whole number of at least 1"),
        ({"resume": True, "overwrite": True}, "`resume` continues a run and `overwrite` replaces it"),
        ({"source": "text.txt", "text": "abc"}, "either `source` or `text`"),
        ({"preset": "karpathy"}, "`preset` must be one of default, notebook"),
    ],
)
def test_wrong_arguments_are_refused_in_pythons_words_before_anything_is_read(arguments, message):
    with pytest.raises(ConfigError, match=message):
        cr.train(**arguments)


def test_a_text_can_be_a_path_several_or_a_string(tmp_path):
    (tmp_path / "more.txt").write_text(TEXT[:100], encoding="utf-8")
    quick = TINY | {"max_steps": 1, "validation_fraction": 0.0, "display": False}
    assert cr.train("text.txt", checkpoint_dir="a", **quick).latest.name == "i1_l8"
    assert cr.train(["text.txt", tmp_path / "more.txt"], checkpoint_dir="b", **quick).latest.name == "i1_l8"
    cr.train(text=TEXT, checkpoint_dir="c", **quick)
    assert losses(tmp_path / "a") == losses(tmp_path / "c")


@pytest.mark.parametrize("source", [5, b"text.txt", ["text.txt", 5], range(3), [b"text.txt"]])
def test_a_source_that_is_no_path_is_refused(source):
    with pytest.raises(ConfigError, match="`source` must be a path, or several, got "):
        cr.train(source, display=False, **TINY)


def test_an_iterator_of_paths_is_not_used_up_before_it_is_read(tmp_path):
    quick = TINY | {"max_steps": 1, "validation_fraction": 0.0, "display": False}
    cr.train("text.txt", checkpoint_dir="a", **quick)
    cr.train(Path().glob("text.*"), checkpoint_dir="b", **quick)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_a_string_that_is_too_short_is_told_as_the_text():
    with pytest.raises(TextError, match=r"^the text: the text is too short"):
        cr.train(text=TEXT[:20], display=False, **TINY | {"validation_fraction": 0.0})


def test_a_string_must_be_given_again_to_resume():
    quick = TINY | {"validation_fraction": 0.0, "display": False}
    cr.train(text=TEXT, **quick)
    with pytest.raises(TextError, match="pass it again"):
        cr.train(resume=True, max_steps=14, display=False)
    with pytest.raises(TextError, match="not the text that the run was trained on"):
        cr.train(text=TEXT[:-1] + "?", resume=True, max_steps=14, display=False)
    assert cr.train(text=TEXT, resume=True, max_steps=14, display=False).latest.name == "i14_l8"


# Interrupting and running again


def test_train_gives_the_handler_of_an_interrupt_back(tmp_path):
    def handler(number, frame):
        raise AssertionError

    for before in (signal.default_int_handler, handler):
        signal.signal(signal.SIGINT, before)
        cr.train("text.txt", checkpoint_dir=before.__name__, display=False, **TINY | {"max_steps": 1})
        assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_an_interrupt_saves_and_returns_the_run():
    def interrupt():
        while not Path("checkpoints/metrics.csv").exists() or Path("checkpoints/metrics.csv").read_text().count("\n") < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    run = cr.train(text=TEXT, **TINY | {"max_steps": 10**6, "display": False})
    assert run.stopped
    step = int(run.latest.name[1:].split("_")[0])
    again = cr.train(text=TEXT, resume=True, max_steps=step + 3, display=False)
    assert not again.stopped
    assert again.latest.name == f"i{step + 3}_l8"


def test_time_counts_from_the_call_and_not_from_the_import():
    code = "import time, charrnn_tf as cr; begin = time.monotonic(); cr.Vocabulary; print(time.monotonic() - begin)"
    assert float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) < 2
    begun = time.monotonic()
    run = cr.train(text=TEXT, display=False, **TINY)
    assert run.history[-1].seconds <= time.monotonic() - begun


# What was meant as something else


@pytest.mark.parametrize("source", ["First line\nSecond line", "to be or not to be", "x" * 2000])
def test_a_text_in_place_of_a_files_name_is_told_in_a_short_line(source):
    with pytest.raises(ConfigError, match=r"is not the name of a file: pass a text itself as `text`") as caught:
        cr.train(source, display=False)
    assert len(str(caught.value)) < 120


def test_a_files_name_in_place_of_a_text_is_not_scored_or_learnt(finished):
    for call in (
        lambda: cr.evaluate(finished.latest, "ana.txt"), lambda: cr.Vocabulary.from_text("ana.txt"),
        lambda: cr.train(text="ana.txt", display=False),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"'ana.txt' looks like the name of a file, where a text is meant"):
            call()
    with pytest.raises(ConfigError, match="a text must be a string, got list"):
        finished.evaluate([1, 2, 3])


def test_a_wrong_name_of_an_argument_of_sample_is_told(finished):
    with pytest.raises(ConfigError, match="sample has no argument 'topn'; did you mean 'top_n'"):
        finished.sample("The ", topn=5)
    with pytest.raises(ConfigError, match="sample has no argument 'primes'; `sample_many` has"):
        finished.sample("The ", primes=3)


def test_several_samples_are_shown_one_below_the_other(finished):
    texts = finished.sample("The ", 20, num_samples=3, seed=1, stop="z")
    many = finished.sample_many(["The "], 3, 20, seed=1, stop="z")
    assert texts == [each.prime + each.text for each in many]
    assert texts._repr_html_().count("<pre") == 3
    assert texts[0] == finished.sample("The ", 20, seed=1, stop="z")


def test_help_and_completion_know_every_argument(finished):
    known = inspect.signature(cr.train).parameters
    assert {*known} == {*ARGUMENTS, *SETTINGS}
    assert known["hidden_size"].default is None
    drawing = inspect.signature(finished.sample).parameters
    own = {**inspect.signature(cr.Sampler.chunks).parameters, **inspect.signature(cr.Sampler.sample).parameters}
    assert {*own} - {*drawing} == {"self", "settings", "chunk"}
    assert all(drawing[name].default == own[name].default for name in own if name in drawing and name != "seed")


def test_a_text_is_shown_as_samples_are(finished, tmp_path):
    (tmp_path / "book.txt").write_text("The old ☃ sea", encoding="utf-8")
    shown = finished.show("The old ☃ sea")
    assert shown == "The old  sea" == finished.show("book.txt")
    assert shown._repr_html_() == finished.sampler().shown("The old  sea")._repr_html_()
    assert finished.show("The old sea", limit_chars=3) == "The"
    for call in (finished.show, finished.evaluate):
        with pytest.raises(ConfigError, match=r"there is no file 'bok\.txt'"):
            call("bok.txt")
    with pytest.raises(ConfigError, match=r"there is no file 'bok\.txt'"):
        finished.report("bok.txt", tmp_path / "page.html")


def test_a_runs_folder_in_place_of_a_checkpoint_is_told(finished):
    with pytest.raises(
        CheckpointError, match=rf"is a run's folder; pass one of its checkpoints: '.*{finished.latest.name}'"
    ):
        cr.evaluate(finished.directory, "the cat")


def test_a_mistake_has_a_short_traceback(finished):
    with pytest.raises(CheckpointError) as caught:
        finished.evaluate("the cat", checkpoint="i9_l9")
    assert len(caught.traceback) == 2


def test_an_empty_list_of_files_is_not_the_built_in_corpus():
    with pytest.raises(ConfigError, match="the list of files is empty"):
        cr.train([], display=False)
