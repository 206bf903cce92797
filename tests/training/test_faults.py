"""Faults during a run: full disks, lost folders and rights, damage, signals, a second run, numbers that are not finite."""

import csv
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from commandline import assert_one_line, call, succeed
from conftest import flip, make_text, rewrite
from processes import Python, command

from charrnn_tf import CharRNNError, ModelConfig, Sampler, TrainConfig, Trainer, Vocabulary, evaluate
from charrnn_tf.runs.find import find, find_record, list_checkpoints, read_run
from charrnn_tf.runs.record import read_record

pytestmark = pytest.mark.slow

TEXT = make_text(6000, seed=4)
SETTINGS = (
    "--hidden-size", "16", "--num-layers", "1", "--batch-size", "16", "--num-steps", "16", "--dropout", "0.2",
    "--weight-dropout", "0", "--schedule", "constant", "--log-every", "5", "--save-every", "10", "--seed", "5",
    "--sample-length", "20",
)  # fmt: skip
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}  # as a user has it
CAN_MOUNT = shutil.which("mount") and os.geteuid() == 0
CAN_DROP_RIGHTS = shutil.which("setpriv") and os.geteuid() == 0
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}


def start(*arguments, before=""):
    """A process of the command; before: a statement to run first."""
    return Python(["-c", f"{before}\nfrom charrnn_tf.cli.main import main\nmain()", *arguments], **PIPES)


def rows(folder):
    """The rows of metrics.csv without times."""
    with open(Path(folder, "metrics.csv"), encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return [[cell for name, cell in row.items() if name not in ("seconds", "chars_per_second")] for row in found]


def wait_for(condition, process=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def saved(folder):
    return list_checkpoints(folder) if Path(folder).is_dir() else []


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def error_line(err):
    """The only error on standard error."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("Error")]
    assert len(lines) == 1, err
    return lines[0]


# Storage


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a disk of 5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.usefixtures("one_process")
@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount a disk")
def test_a_run_on_a_full_disk_ends_with_an_error_and_resumes_once_there_is_room(text, small_disk):
    folder = small_disk / "run"
    process = start("train", text, *SETTINGS, "--keep", "5", "--max-steps", "100000", "--checkpoint-dir", folder)
    wait_for(lambda: len(saved(folder)) > 1, process)
    subprocess.run(["dd", "if=/dev/zero", f"of={small_disk / 'other'}"], check=False, capture_output=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"can't (save|write) '.*disk/run/.*': no space left on device", error_line(err), re.IGNORECASE)
    good = saved(folder)
    assert good
    assert all(read_record(path) for path in good)
    (small_disk / "other").unlink()
    before = read_record(good[-1]).step
    succeed("train", "--resume", "--max-steps", before + 50, "--checkpoint-dir", folder)
    assert [int(step) for step, *_ in rows(folder) if int(step) > before][-1] == before + 50


@pytest.mark.parametrize(
    "size", [300, 3000, 12_000]
)  # bytes that a file may have: of metrics.csv, config.json, the variables
def test_a_limit_on_the_size_of_files_is_an_error_and_leaves_no_checkpoint(text, tmp_path, size):
    limit = (
        f"import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    )
    folder = tmp_path / "run"
    settings = ("--hidden-size", "64", "--max-steps", "60", "--checkpoint-dir", folder)
    process = start("train", text, *SETTINGS, *settings, before=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(r"can't (save|write) '.*run/.*': .*(file too large|too large)", error_line(err), re.IGNORECASE)
    assert saved(folder) == []
    assert not list(folder.glob(".i*"))


@pytest.mark.skipif(not CAN_DROP_RIGHTS, reason="needs to be root, to start a run without its rights")
@pytest.mark.usefixtures("one_process")
def test_a_run_that_loses_the_right_to_write_ends_with_an_error(text, tmp_path):
    folder = tmp_path / "run"
    rights = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    process = subprocess.Popen(
        [*rights, *command("train", text, *SETTINGS, "--max-steps", "100000", "--checkpoint-dir", folder)], **PIPES
    )
    wait_for(lambda: len(saved(folder)) > 1, process)
    folder.chmod(0o500)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        folder.chmod(0o700)
    assert process.returncode == 1
    assert re.search(r"can't .*'.*run.*': permission denied", error_line(err))
    assert all(read_record(path) for path in saved(folder))
    succeed("train", "--resume", "--max-steps", "10", "--checkpoint-dir", folder)


def test_a_run_whose_folder_is_removed_creates_it_again(text, tmp_path):
    folder = tmp_path / "run"
    process = start("train", text, *SETTINGS, "--max-steps", "600", "--checkpoint-dir", folder)
    wait_for(lambda: len(saved(folder)) > 1, process)
    shutil.rmtree(folder, ignore_errors=True)
    out, err = process.communicate(timeout=60)
    if process.returncode:  # it was removed in the middle of a save
        assert str(folder) in error_line(err)
        return
    assert "was removed or emptied during the run; it is created again" in err
    assert Path(out.strip()).name == "i600_l16"
    assert read_record(out.strip()).step == 600
    assert [int(step) for step, *_ in rows(folder) if int(step) % 5 == 0] == list(range(5, 601, 5))


@pytest.mark.usefixtures("instant")
def test_a_run_whose_folder_is_emptied_writes_all_rows_again(tmp_path):
    folder = tmp_path / "run"
    emptied = trainer(folder, small(40))
    for row in emptied.run():
        if row.step == 30:
            for path in folder.glob("[!.]*"):  # as `rm -r run/*` does: the lock stays
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    list(trainer(tmp_path / "whole", small(40)).run())
    assert rows(folder) == rows(tmp_path / "whole")
    assert all(path.exists() for path in emptied.directory.records)
    assert {path.name for path in emptied.directory.records} == {"i30_l8", "i35_l8", "i40_l8"}


# Damaged checkpoints


def small(max_steps=20, **changes):
    settings = {"batch_size": 4, "num_steps": 8, "save_every": 5, "validate_every": 10, "log_every": 5, "keep": 9}
    settings |= {"schedule": "constant", "seed": 2}
    return TrainConfig(**{**settings, "max_steps": max_steps, **changes})


def trainer(folder, config, **how):
    vocabulary = Vocabulary.from_text(TEXT)
    return Trainer(ModelConfig(len(vocabulary), hidden_size=8), config, vocabulary, vocabulary.encode(TEXT), folder, **how)


@pytest.fixture
def run_of_20(tmp_path, instant):
    """The folder of a run of 20 steps to damage; steps compute nothing."""
    list(trainer(tmp_path / "made", small()).run())
    assert [path.name for path in list_checkpoints(tmp_path / "made")] == ["i5_l8", "i10_l8", "i15_l8", "i20_l8"]
    return tmp_path / "made"


DAMAGE = {
    "a flipped bit": lambda path: flip(path / "variables.data-00000-of-00001"),
    "a truncated file": lambda path: os.truncate(path / "variables.index", 30),
    "a missing file": lambda path: (path / "variables.index").unlink(),
    "no sums": lambda path: (path / "SHA256SUMS").unlink(),
    "no JSON": lambda path: (path / "config.json").write_text("{"),
    "no config": lambda path: (path / "config.json").unlink(),
    "a newer version": lambda path: rewrite(path, lambda data: data.update(format=99)),
    "absurd values": lambda path: rewrite(path, lambda data: data["counters"].update(step=-1, epoch=1e400)),
    "no model": lambda path: rewrite(path, lambda data: data.update(model=None)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_latest_and_best_skip_damaged_checkpoints_and_say_so(run_of_20, damage, caplog):
    assert find("best", run_of_20).name == "i10_l8"
    DAMAGE[damage](run_of_20 / "i20_l8")
    path, record = find_record("latest", run_of_20)
    assert (path.name, record.step) == ("i15_l8", 15)
    assert f"{run_of_20}/i20_l8" in caplog.text
    assert f"taking '{run_of_20}/i15_l8', the newest undamaged one" in caplog.text
    DAMAGE[damage](run_of_20 / "i10_l8")
    assert find("best", run_of_20).name == "i15_l8"
    assert f"{run_of_20}/i10_l8" in caplog.text
    DAMAGE[damage](run_of_20 / "i15_l8")
    assert find("latest", run_of_20).name == "i5_l8"
    with pytest.raises(CharRNNError, match="i20_l8"):
        find("i20_l8", run_of_20)
    with pytest.raises(CharRNNError, match="i20_l8"):
        Sampler.from_checkpoint(run_of_20 / "i20_l8")


def test_a_config_of_another_model_is_refused_with_one_line(run_of_20):
    path = run_of_20 / "i20_l8"
    rewrite(path, lambda data: data["model"].update(hidden_size=9))
    for use in (Sampler.from_checkpoint, lambda path: evaluate(path, TEXT)):
        with pytest.raises(CharRNNError, match=r"^'.*i20_l8' does not fit its own record: .*$"):
            use(path)


def test_if_all_checkpoints_are_damaged_the_error_names_the_newest(run_of_20):
    for path in list_checkpoints(run_of_20):
        flip(path / "variables.index")
    with pytest.raises(CharRNNError, match=r"i20_l8/variables.index' is damaged"):
        find("latest", run_of_20)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_resumes_from_before_the_damage_and_repeats_the_steps(run_of_20, tmp_path, damage, caplog):
    DAMAGE[damage](run_of_20 / "i20_l8")
    DAMAGE[damage](run_of_20 / "i10_l8")
    list(trainer(run_of_20, small(30), resume=True).run())
    assert "was renamed to .i20_l8.damaged" in caplog.text
    assert [read_record(path).step for path in list_checkpoints(run_of_20)] == [5, 15, 20, 25, 30]
    assert sorted(path.name for path in run_of_20.glob(".*.damaged")) == [".i10_l8.damaged", ".i20_l8.damaged"]
    list(trainer(tmp_path / "whole", small(30)).run())
    assert rows(run_of_20) == rows(tmp_path / "whole")


@pytest.mark.usefixtures("one_process")
def test_the_commands_list_and_sample_undamaged_checkpoints(run_of_20):
    flip(run_of_20 / "i20_l8" / "config.json")
    listed = call("checkpoints", "--checkpoint-dir", run_of_20)
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["i5_l8", "i10_l8", "i15_l8"]
    assert len(succeed("sample", "--checkpoint-dir", run_of_20, "--length", "5", "--seed", "1")) == 6
    process = start("checkpoints", "--checkpoint-dir", run_of_20)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, listed.stdout)
    assert re.fullmatch(r"Warning: '.*i20_l8/config.json' is damaged: [^\n]+\n", err)


# Two runs at once


@pytest.mark.usefixtures("one_process")
def test_a_second_run_is_refused_until_the_first_is_killed(text, tmp_path):
    folder = tmp_path / "run"
    first = start("train", text, *SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", folder)
    wait_for(lambda: saved(folder), first)
    for how in ((text, *SETTINGS), (text, "--overwrite"), ("--resume",)):
        refused = call("train", *how, "--checkpoint-dir", folder)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert re.fullmatch(rf"Error: another run is writing to '{folder}'\. Wait for it, [^\n]+\n", refused.stderr)
        assert saved(folder)
    first.kill()
    first.communicate()
    succeed("train", "--resume", "--max-steps", "20", "--checkpoint-dir", folder)


@pytest.mark.usefixtures("instant")
def test_a_trainer_may_be_created_again_in_the_same_process(tmp_path):
    first = trainer(tmp_path, small())
    again = trainer(tmp_path, small(), overwrite=True)  # a notebook's cell that is run twice
    list(again.run())
    with pytest.raises(CharRNNError, match="another run has written to"):
        list(first.run())


@pytest.mark.usefixtures("instant")
def test_reading_while_a_run_saves_and_prunes_sees_only_complete_checkpoints(tmp_path):
    writer = trainer(tmp_path, small(1_000_000, save_every=1, keep=1, validate_every=3, log_every=1000, patience=0))
    thread = threading.Thread(target=lambda: list(writer.run()))
    thread.start()
    try:
        wait_for(lambda: saved(tmp_path))
        process = start("sample", "--checkpoint-dir", tmp_path, "--length", "5", "--seed", "1")
        seen = set()
        end = time.monotonic() + 60
        while (process.poll() is None or len(seen) < 20) and time.monotonic() < end:
            for which in ("latest", "best"):
                path, record = find_record(which, tmp_path)
                assert record.vocabulary == writer.vocabulary
                seen.add(path.name)
            assert read_run(tmp_path)
        assert len(seen) >= 20
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        writer.stop()
        thread.join(60)
    assert writer.stopped


# Signals


def read_to_first_row(process):
    """Read standard error up to the run's first row."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step"):
            return
    raise AssertionError(lines)


def test_a_signal_saves_and_stops_within_two_seconds_even_during_a_validation(tmp_path):
    text = tmp_path / "long.txt"
    text.write_text(make_text(1_500_000, seed=5), encoding="utf-8")
    settings = (
        "--hidden-size", "256", "--batch-size", "8", "--num-steps", "16", "--validation-fraction", "0.6", "--log-every", "2",
        "--validate-every", "20", "--max-steps", "100000", "--checkpoint-dir", tmp_path / "run",
    )  # fmt: skip
    process = start("train", text, *settings)
    read_to_first_row(process)
    time.sleep(3)  # into the validation of 900,000 characters, which takes far longer
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 4  # two, and the time in which a process ends
    assert process.returncode == 143
    assert "Stopped and saved" in err
    assert re.search(r"Continue with: charrnn-tf train --resume --checkpoint-dir \S+\n", err)
    record = read_record(out.strip())
    assert record.step == 20
    assert record.validation_loss is None
    assert all(row[0] != "20" for row in rows(tmp_path / "run"))


def test_a_second_interrupt_does_not_wait(text, tmp_path):
    process = start("train", text, *SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", tmp_path / "run")
    read_to_first_row(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert all(read_record(path) for path in saved(tmp_path / "run"))


def test_a_closed_terminal_stops_and_saves_the_run(text, tmp_path):
    ours, theirs = pty.openpty()
    folder = tmp_path / "run"
    process = subprocess.Popen(
        ["env", "--default-signal=HUP", "setsid", "--ctty", "--wait",  # also where the tests run under nohup
         *command("train", text, *SETTINGS, "--save-every", "999999", "--checkpoint-dir", folder)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"loss" not in shown:
        shown += os.read(ours, 1 << 16)
    os.close(ours)  # which sends SIGHUP, and makes every write fail
    assert process.wait(timeout=10) == 129
    [path] = saved(folder)
    assert read_record(path).step > 0


def test_a_run_started_with_nohup_survives_its_terminal(text, tmp_path):
    settings = (*SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", tmp_path / "run")
    process = start("train", text, *settings, before="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    read_to_first_row(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_closed_pipe_for_progress_does_not_end_a_run(text, tmp_path):
    with start("train", text, *SETTINGS, "--max-steps", "300", "--checkpoint-dir", tmp_path / "run") as process:
        assert process.stderr.readline()
        process.stderr.close()
        assert process.stdout.read().endswith("i300_l16\n")
    assert process.returncode == 0


# Numbers that are not finite


def with_loss(monkeypatch, change):
    """Make `change(step, nats)` the loss of each training step."""
    from charrnn_tf.training import step as module

    loss = module.window_loss

    def changed(model, config, rate, step, *rest):
        nats, state = loss(model, config, rate, step, *rest)
        return change(step, nats), state

    monkeypatch.setattr(module, "window_loss", changed)


def test_a_loss_that_is_not_finite_never_reaches_the_weights(tmp_path, monkeypatch, caplog):
    with_loss(monkeypatch, lambda step, nats: nats / tf.where(step % 4 == 1, 0.0, 1.0))
    run = trainer(tmp_path, small(60))  # more skipped steps than end a run if they follow each other
    found = list(run.run())
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    assert all(np.isfinite(row.train_loss) for row in found)
    assert int(run.state.optimizer.iterations) == 45
    assert ": their loss or gradient was not finite" in caplog.text


def test_many_skipped_steps_in_a_row_end_the_run_with_one_line(tmp_path, monkeypatch):
    with_loss(monkeypatch, lambda step, nats: tf.where(step >= 12, float("nan"), nats))
    run = trainer(tmp_path, small(100))
    message = r"10 steps in a row, up to step 22, .*The last checkpoint is i\d+_l8.* `learning_rate` or `weight_decay`\.$"
    with pytest.raises(CharRNNError, match=message):
        list(run.run())
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    assert all(read_record(path).step <= 20 for path in list_checkpoints(tmp_path))
    assert read_record(list_checkpoints(tmp_path)[-1])


@pytest.mark.parametrize(
    ("optimizer", "rate", "clip_norm"),
    [("adam", 100.0, 0.0), ("adam", 1e6, 5.0), ("sgd", 100.0, 0.0), ("sgd", 1e6, 5.0), ("rmsprop", 1e6, 0.0)],
)
def test_a_far_too_high_learning_rate_never_makes_weights_that_are_not_finite(tmp_path, optimizer, rate, clip_norm):
    run = trainer(
        tmp_path,
        small(100, learning_rate=rate, warmup_steps=0, optimizer=optimizer, clip_norm=clip_norm, keep=1, save_every=50),
    )
    message = ""
    try:
        list(run.run())
    except CharRNNError as error:
        message = str(error)
    assert not message or re.search("not finite in 10 steps .* `learning_rate`", message)
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    for path in list_checkpoints(tmp_path):
        reader = tf.train.load_checkpoint(str(path / "variables"))
        weights = [name for name in reader.get_variable_to_shape_map() if name.startswith("weights/")]
        assert weights
        assert all(np.isfinite(reader.get_tensor(name)).all() for name in weights)


# A changed text


@pytest.mark.usefixtures("one_process", "instant")
def test_a_changed_text_is_described_when_a_run_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXT[:3000] + "\n", encoding="utf-8")
    Path("b.txt").write_text(TEXT[3000:] + "\n", encoding="utf-8")
    succeed("train", "a.txt", "b.txt", *SETTINGS, "--max-steps", "10")

    def refusal(*text):
        refused = call("train", *text, "--resume", "--max-steps", "20")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert_one_line(refused.stderr)
        return refused.stderr

    assert re.search(r"its files were read in another order: '\S*/a\.txt', '\S*/b\.txt'\. ", refusal("b.txt", "a.txt"))
    assert "that had 6,002 characters in 2 files, this has 3,001 in 1." in refusal("a.txt")
    whole = Path("a.txt").read_text(encoding="utf-8")
    Path("a.txt").write_text(whole.replace("the", "THE", 1), encoding="utf-8")
    assert "a.txt' has changed." in refusal()
    Path("a.txt").write_text(whole + "more", encoding="utf-8")
    assert "a.txt' has changed from 3,001 to 3,005 characters." in refusal()
    Path("a.txt").write_text(whole, encoding="utf-8")
    Path("a.txt").rename("moved.txt")
    succeed("train", "moved.txt", "b.txt", "--resume", "--max-steps", "20")
