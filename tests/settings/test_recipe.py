"""The default preset's rule: what it chooses for which text, budget and machine, and how a run prints and keeps it."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import charrnn_tf
from charrnn_tf.api import launch
from charrnn_tf.cli.main import cli
from charrnn_tf.machine.hardware import this_machine
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings import merge
from charrnn_tf.settings.recipe import LEAST_UPDATES, SPEEDS, Machine, recipe
from charrnn_tf.text.windows import Streams

LAPTOP = Machine(cores=2, bfloat16=True)
LENGTH = 1_800_000  # characters of the training part


def choose(characters, machine=LAPTOP, **budget):
    """The chosen values, by name."""
    return {name: choice.value for name, choice in recipe(characters, machine, **budget).items()}


@pytest.mark.parametrize(
    ("budget", "width"),
    [
        ({"seconds": 10}, 256), ({"seconds": 74}, 256), ({"seconds": 139}, 384), ({"seconds": 278}, 512),
        ({"seconds": 10**6}, 512), ({}, 512), ({"epochs": 1}, 256), ({"epochs": 3}, 512),
        ({"max_steps": LEAST_UPDATES - 1}, 256), ({"max_steps": LEAST_UPDATES}, 512),
        ({"seconds": 10**6, "epochs": 1}, 256), ({"seconds": 74, "epochs": 100}, 256),
    ],
)  # fmt: skip
def test_the_widest_that_the_shortest_budget_gives_enough_updates(budget, width):
    assert choose(LENGTH, **budget)["hidden_size"] == width


@pytest.mark.parametrize(
    ("machine", "seconds", "width"),
    [
        (Machine(cores=1), 100, 256), (Machine(cores=2), 100, 256), (LAPTOP, 139, 384), (Machine(cores=4), 139, 384),
        (Machine(cores=4, bfloat16=True), 139, 512), (Machine(cores=64, bfloat16=True), 30, 256),
        (Machine(cores=2), 400, 512), (Machine(cores=2, only_avx2=True), 400, 256),
        (Machine(cores=2, only_avx2=True, bfloat16=True), 400, 512), (Machine(cores=8, gpus=1), 100, 512),
        (Machine(cores=2, bfloat16=True, speed=0.444), 139, 256), (Machine(cores=2, speed=1.5), 220, 512),
        (Machine(cores=2), 220, 384), (Machine(cores=2, only_avx2=True, speed=3.38), 400, 384),
    ],
)  # fmt: skip
def test_a_faster_machine_affords_a_wider_model(machine, seconds, width):
    assert choose(LENGTH, machine, seconds=seconds)["hidden_size"] == width


@pytest.mark.parametrize(
    "budget", [{"seconds": seconds} for seconds in (20, 60, 139, 1000)] + [{"epochs": 1}, {"max_steps": 9}]
)
def test_with_a_gpu_the_processor_counts_for_nothing(budget):
    processors = [
        Machine(cores=cores, bfloat16=bfloat16, only_avx2=only_avx2, gpus=1)
        for cores, bfloat16, only_avx2 in [(1, False, False), (2, False, True), (8, True, False), (128, True, False)]
    ]
    chosen = [choose(LENGTH, machine, **budget) for machine in processors]
    assert chosen == chosen[:1] * 4
    assert chosen[0]["precision"] == "float32"


def test_a_gpu_takes_longer_for_wider_models_than_measured_and_fewer_streams():
    gpu = Machine(gpus=1)
    passes = [choose(LENGTH, gpu, seconds=300, hidden_size=width)["weight_dropout"] for width in (256, 512, 1024, 2048)]
    assert passes[0] == passes[1] > passes[2] > passes[3]
    assert choose(10_000, gpu, seconds=8.5)["dropout"] == 0.1  # 4 passes in half a second with 16 streams


def test_more_cores_and_bfloat16_never_make_the_model_narrower():
    widths = [
        choose(LENGTH, Machine(cores=cores, bfloat16=fast), seconds=110)["hidden_size"]
        for cores, fast in [(1, False), (2, False), (2, True), (4, False), (4, True), (8, True)]
    ]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (256, 512)


def test_dropout_grows_with_the_passes_over_the_text():
    chosen = [choose(1_000_000, epochs=epochs)["dropout"] for epochs in (1, 2, 5, 10, 20, 40, 80, 1000)]
    assert chosen == [0, 0, 0.15, 0.3, 0.45, 0.5, 0.5, 0.5]


def test_weight_dropout_follows_after_more_passes():
    chosen = [choose(10**6, epochs=epochs)["weight_dropout"] for epochs in (1, 5, 6, 10, 20, 29, 1000)]
    assert chosen == [0, 0, 0.05, 0.2, 0.4, 0.5, 0.5]


def test_a_slower_machine_makes_fewer_passes_and_gets_less_dropout():
    chosen = [choose(10**6, Machine(2, True, speed=speed), seconds=100, hidden_size=256) for speed in (0.2, 0.444, 1, 3.38)]
    assert [(each["dropout"], each["weight_dropout"]) for each in chosen] == [(0, 0), (0.05, 0), (0.2, 0.1), (0.35, 0.3)]


def test_faster_products_speed_up_their_share_of_a_step_only():
    def passes(speed):
        why = recipe(10**6, Machine(2, True, speed=speed), seconds=1008, hidden_size=256)["dropout"].why
        return float(why.split()[0])

    assert passes(1) == 74
    assert passes(0.5) == 37
    assert passes(2) == round(74 / (0.7 / 2 + 0.3))
    assert passes(1000) == pytest.approx(74 / 0.3, rel=0.01)


def test_the_speed_is_that_of_the_precision_given():
    fast = Machine(2, bfloat16=True)
    for machine, precision, speed in [
        (fast, None, "74,000"), (fast, "bfloat16", "74,000"), (fast, "float32", "52,000"),
        (Machine(2), "bfloat16", "52,000"), (Machine(2, only_avx2=True), None, "13,000"),
    ]:  # fmt: skip
        why = recipe(10**6, machine, seconds=600, hidden_size=256, precision=precision)["dropout"].why
        assert why.endswith(f"passes over the text, assuming {speed} characters/s")


def test_the_assumed_speed_is_named_only_if_it_counts():
    assert recipe(10**6, LAPTOP, epochs=3)["dropout"].why == "3.00 passes over the text"


@pytest.mark.parametrize(("width", "rate"), [(8, 0.02), (256, 0.02), (384, 0.016), (512, 0.014), (1024, 0.01)])
def test_the_rate_falls_with_the_width(width, rate):
    assert choose(10**6, hidden_size=width)["learning_rate"] == rate


def test_a_given_width_determines_the_number_of_passes():
    chosen = [choose(10**6, seconds=600, hidden_size=width) for width in (128, 256, 512, 1024)]
    assert [each["hidden_size"] for each in chosen] == [128, 256, 512, 1024]
    assert sorted((each["dropout"] for each in chosen), reverse=True) == [each["dropout"] for each in chosen]
    assert chosen[0]["weight_dropout"] > chosen[3]["weight_dropout"]


@pytest.mark.parametrize(
    ("characters", "batch_size"),
    [(65, 1), (500, 1), (1023, 1), (1024, 2), (8_191, 8), (8_192, 16), (16_384, 32), (10**9, 32)],
)
def test_short_texts_are_read_as_fewer_streams(characters, batch_size):
    assert choose(characters, epochs=1)["batch_size"] == batch_size


def test_validations_of_short_texts_are_ten_epochs_apart_and_four_in_a_run():
    for characters, steps in [(2_048_000, None), (2_047_999, 1000), (204_800, 1000), (100_000, 488), (500, 100)]:
        assert choose(characters, epochs=100).get("validate_every") == steps
    assert choose(1_000_000, max_steps=2_000)["validate_every"] == 500
    assert choose(1_000_000, max_steps=1_000)["validate_every"] == 341  # 0.7 epochs
    assert choose(100_000, max_steps=50)["validate_every"] == 100


def test_bfloat16_is_chosen_where_the_cpu_has_it():
    for has, precision in [(True, "bfloat16"), (False, "float32")]:
        assert choose(10**6, Machine(bfloat16=has))["precision"] == precision


@given(
    characters=st.integers(66, 10**10),
    seconds=st.none() | st.floats(1e-3, 1e7),
    epochs=st.none() | st.integers(1, 10**4),
    max_steps=st.none() | st.integers(1, 10**9),
    machine=st.builds(Machine, st.integers(1, 128), st.booleans(), st.booleans(), st.integers(0, 8), st.floats(1e-3, 1e3)),
)
def test_every_choice_can_be_trained(characters, seconds, epochs, max_steps, machine):
    chosen = choose(characters, machine, seconds=seconds, epochs=epochs, max_steps=max_steps)
    model, config = merge.preset("default", 83, **chosen)
    assert model.hidden_size in SPEEDS
    ids = np.zeros(min(characters, 20_000), np.uint8)
    assert Streams.cut(ids, config.batch_size, config.num_steps).steps_per_epoch >= 1


# The command


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with a text, a run in `first` with settings that the recipe chose, and its output on standard error."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "text.txt").write_text("The cat sat on the mat. " * 40, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            patch.setenv(name, "1")
        patch.chdir(folder)
        _, shown = train("--max-steps", 1, "--hidden-size", 8, "--checkpoint-dir", "first")
    return folder, shown


@pytest.fixture
def folder(first, one_process, tmp_path, monkeypatch):
    """A copy of that folder."""
    shutil.copytree(first[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*arguments):
    result = CliRunner().invoke(cli, ["train", "text.txt", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return read_record(result.stdout.strip()), result.stderr


@pytest.mark.slow
def test_the_choices_are_printed_and_saved(folder, first):
    record = read_record(next((folder / "first").glob("i*_l8")))
    asked = merge.merge("default", {}, {"max_steps": 1, "hidden_size": 8})
    resolved = merge.resolve(asked, 960, record.model.vocab_size, this_machine())
    assert (record.model, record.train) == (resolved.model, resolved.train)  # nothing is decided after `resolve`
    lines = re.search(
        r"^Chosen for this text, budget and machine \(any setting overrides it\):\n((  --.*\n)+)", first[1], re.M
    )
    printed = dict(line.split()[:2] for line in lines[1].splitlines())
    assert printed == {"--" + name.replace("_", "-"): str(value) for name, (value, _) in resolved.chosen.items()}
    assert (printed["--batch-size"], printed["--validate-every"], printed["--clip-norm"]) == ("1", "100", "0.1")


@pytest.mark.slow
def test_a_resumed_run_keeps_the_choices(folder, monkeypatch):
    before = read_record(next((folder / "first").glob("i*_l8")))
    monkeypatch.setattr(merge, "recipe", None)
    after, shown = train("--max-steps", 2, "--resume", "--checkpoint-dir", "first")
    assert after.model == before.model
    assert after.train == dataclasses.replace(before.train, max_steps=2)
    assert "Chosen" not in shown


@pytest.mark.slow
def test_options_files_and_an_initial_model_override_the_choices(folder, monkeypatch):
    (folder / "run.toml").write_text("dropout = 0.35\nweight_dropout = 0.1\n", encoding="utf-8")
    flags = ("--batch-size", 2, "--precision", "float32", "--max-steps", 1, "--validate-every", 5, "--learning-rate", 0.001,
             "--clip-norm", 2, "--final-rate", 0.5, "--averaging", 0.1, "--weight-decay", 0)  # fmt: skip
    record, shown = train("--config", "run.toml", *flags, "--init-from", "first", "--checkpoint-dir", "second")
    assert (record.model.hidden_size, record.model.dropout) == (8, 0.35)
    assert (record.train.batch_size, record.train.precision, record.train.weight_dropout) == (2, "float32", 0.1)
    assert (record.train.validate_every, record.train.learning_rate, record.train.clip_norm) == (5, 0.001, 2.0)
    assert "Chosen" not in shown


@pytest.fixture
def asked_for(monkeypatch):
    """The measurements that were made, as arguments; each returns 0.444."""
    calls = []

    def measured_speed(*arguments):
        calls.append(arguments)
        return 0.444

    monkeypatch.setattr(launch, "measured_speed", measured_speed)
    monkeypatch.setattr(launch, "this_machine", lambda gpus: Machine(cores=2, bfloat16=True))
    return calls


SHORTLY = ("--max-steps", 1, "--max-seconds", 600)


@pytest.mark.slow
def test_the_measured_speed_is_used_shown_saved_and_kept(folder, asked_for):
    asked = merge.merge("default", {}, {"max_steps": 1, "max_seconds": 600.0})
    record, shown = train(*SHORTLY, "--checkpoint-dir", "new")
    resolved = merge.resolve(asked, 960, record.model.vocab_size, Machine(cores=2, bfloat16=True, speed=0.444))
    assert asked_for == [(1, "bfloat16", 450)]
    assert (record.model, record.train) == (resolved.model, resolved.train)
    assert record.in_force["speed"] == 0.444
    assert f"passes over the text, assuming {resolved.chosen['dropout'].why.split()[-2]} characters/s\n" in shown
    resumed, _ = train("--max-steps", 2, "--resume", "--checkpoint-dir", "new")
    assert len(asked_for) == 1
    assert (resumed.step, resumed.in_force["speed"], resumed.model) == (2, 0.444, record.model)


@pytest.mark.slow
def test_python_chooses_by_the_measured_speed_as_the_command_does(folder, asked_for):
    record, _ = train(*SHORTLY, "--checkpoint-dir", "new")
    run = charrnn_tf.train("text.txt", max_steps=1, max_seconds=600.0, checkpoint_dir="python", display=False)
    from_python = read_record(next((folder / "python").glob("i1_l*")))
    assert not run.stopped
    assert asked_for[0] == asked_for[1]
    assert (from_python.model, from_python.train, from_python.in_force) == (record.model, record.train, record.in_force)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-steps", 1), ("--epochs", 1), (*SHORTLY, "--preset", "notebook-tf1"),
        (*SHORTLY, "--dropout", 0, "--weight-dropout", 0),
    ],
)  # fmt: skip
def test_nothing_is_measured_where_no_choice_depends_on_it(folder, asked_for, arguments):
    record, _ = train(*arguments, "--hidden-size", 8, "--checkpoint-dir", "new")
    assert asked_for == []
    assert "speed" not in record.in_force


def test_nothing_is_measured_for_several_workers_or_a_gpu(asked_for):
    resolved = merge.resolve(merge.merge("default", {}, {}), 960, 9, LAPTOP)
    assert launch._speed(resolved, LAPTOP, None) == 0.444
    assert launch._speed(resolved, LAPTOP, object()) is None
    assert launch._speed(resolved, dataclasses.replace(LAPTOP, gpus=1), None) is None
    assert len(asked_for) == 1


def test_the_precision_that_will_be_used_is_measured(asked_for):
    for precision, machine, expected in [
        ("float32", LAPTOP, ("float32", 237)), ("bfloat16", LAPTOP, ("bfloat16", 450)),
        ("bfloat16", Machine(2), ("float32", 237)), ("float32", Machine(2, only_avx2=True), ("float32", 70)),
    ]:  # fmt: skip
        launch._speed(merge.resolve(merge.merge("default", {}, {"precision": precision}), 10**6, 9, machine), machine, None)
        assert asked_for[-1] == (2, *expected)
