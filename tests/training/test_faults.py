"""What happens to machines while a run goes on: full disks, lost folders and rights, signals, a second run, odd numbers."""

import csv
import hashlib
import json
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
from conftest import make_text
from processes import Python, command

from charrnn_tf import CharRNNError, ModelConfig, Sampler, TrainConfig, Trainer, Vocabulary, evaluate
from charrnn_tf.runs.find import find, find_record, list_checkpoints, read_run
from charrnn_tf.runs.record import read_record

TEXT = make_text(6000, seed=4)
SETTINGS = (
    "--hidden-size", "16", "--num-layers", "1", "--batch-size", "16", "--num-steps", "16", "--dropout", "0.2",
    "--weight-dropout", "0", "--schedule", "constant", "--log-every", "5", "--save-every", "10", "--seed", "5",
    "--sample-length", "20",
)  # fmt: skip
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}  # as a user has it
CAN_MOUNT = shutil.which("mount") and os.geteuid() == 0
CAN_DROP_RIGHTS = shutil.which("setpriv") and os.geteuid() == 0


def start(*arguments, **settings):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    return Python(["-m", "charrnn_tf", *arguments], **(pipes | settings))


def run(*arguments, **settings):
    process = start(*arguments, **settings)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def rows(folder):
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
    """The last line, which is the error, alone."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("Error")]
    assert len(lines) == 1, err
    return lines[0]


# ---- storage


@pytest.fixture
def small_disk(tmp_path):
    """A small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs the right to mount a disk")
def test_a_disk_that_fills_up_and_is_emptied(text, tmp_path, small_disk):
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
    steps = read_record(good[-1]).step + 50
    assert run("train", "--resume", "--max-steps", steps, "--checkpoint-dir", folder)[0] == 0
    run("train", text, *SETTINGS, "--max-steps", steps, "--checkpoint-dir", tmp_path / "whole")
    assert rows(folder) == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("size", [300, 3000, 12_000])  # bytes a file may have: of metrics.csv, config.json, the variables
def test_a_limit_on_the_size_of_files(text, tmp_path, size):
    limit = f"ulimit -f {max(size // 1024, 1)}; trap '' XFSZ; exec "
    folder = tmp_path / "run"
    line = limit + " ".join(command("train", text, *SETTINGS, "--hidden-size", "64", "--max-steps", "60"))
    process = subprocess.run(
        ["bash", "-c", f"{line} --checkpoint-dir {folder}"], capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 1
    assert re.search(
        r"can't (save|write) '.*run/.*': .*(file too large|too large)", error_line(process.stderr), re.IGNORECASE
    )
    assert saved(folder) == []
    assert not list(folder.glob(".i*"))


@pytest.mark.slow
@pytest.mark.skipif(not CAN_DROP_RIGHTS, reason="needs to be root, to begin without its rights")
def test_the_right_to_write_is_lost(text, tmp_path):
    folder = tmp_path / "run"
    rights = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    process = subprocess.Popen(
        [*rights, *command("train", text, *SETTINGS, "--max-steps", "100000", "--checkpoint-dir", folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    wait_for(lambda: len(saved(folder)) > 1, process)
    folder.chmod(0o500)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        folder.chmod(0o700)
    assert process.returncode == 1
    assert re.search(r"can't .*'.*run.*': permission denied", error_line(err))
    assert all(read_record(path) for path in saved(folder))
    assert run("train", "--resume", "--max-steps", "10", "--checkpoint-dir", folder)[0] == 0


@pytest.mark.slow
def test_the_folder_is_removed_under_the_run(text, tmp_path):
    folder = tmp_path / "run"
    process = start("train", text, *SETTINGS, "--max-steps", "600", "--checkpoint-dir", folder)
    wait_for(lambda: len(saved(folder)) > 1, process)
    shutil.rmtree(folder, ignore_errors=True)
    out, err = process.communicate(timeout=60)
    if process.returncode:  # it was removed in the middle of a save
        assert str(folder) in error_line(err)
        return
    assert "was removed or emptied while the run writes to it" in err
    assert Path(out.strip()).name == "i600_l16"
    assert read_record(out.strip()).step == 600
    run("train", text, *SETTINGS, "--max-steps", "600", "--checkpoint-dir", tmp_path / "whole")
    assert rows(folder) == rows(tmp_path / "whole")


@pytest.mark.slow
def test_the_folder_is_emptied_under_the_run(tmp_path):
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


# ---- damaged checkpoints


def small(max_steps=20, **changes):
    settings = {"batch_size": 4, "num_steps": 8, "save_every": 5, "validate_every": 10, "log_every": 5, "keep": 9}
    settings |= {"schedule": "constant", "seed": 2}
    return TrainConfig(**{**settings, "max_steps": max_steps, **changes})


def trainer(folder, config, vocabulary=None, **how):
    vocabulary = vocabulary or Vocabulary.from_text(TEXT)
    return Trainer(ModelConfig(len(vocabulary), hidden_size=8), config, vocabulary, vocabulary.encode(TEXT), folder, **how)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    list(trainer(folder, small()).run())
    assert [path.name for path in list_checkpoints(folder)] == ["i5_l8", "i10_l8", "i15_l8", "i20_l8"]
    return folder


@pytest.fixture
def made(made_once, tmp_path):
    """A run of 20 steps to damage."""
    return shutil.copytree(made_once, tmp_path / "made")


@pytest.fixture(scope="module")
def rows_of_30_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    list(trainer(folder, small(30)).run())
    return rows(folder)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def forge(path, **changes):
    """Change config.json and make the sums right again."""
    config = path / "config.json"
    data = json.loads(config.read_text(encoding="utf-8"))
    before = hashlib.sha256(config.read_bytes()).hexdigest()
    config.write_text(json.dumps(data | changes), encoding="utf-8")
    sums = (path / "SHA256SUMS").read_text(encoding="utf-8")
    (path / "SHA256SUMS").write_text(sums.replace(before, hashlib.sha256(config.read_bytes()).hexdigest()), encoding="utf-8")


DAMAGE = {
    "a flipped bit": lambda path: flip(path / "variables.data-00000-of-00001"),
    "a truncated file": lambda path: os.truncate(path / "variables.index", 30),
    "a missing file": lambda path: (path / "variables.index").unlink(),
    "no sums": lambda path: (path / "SHA256SUMS").unlink(),
    "no JSON": lambda path: (path / "config.json").write_text("{"),
    "no config": lambda path: (path / "config.json").unlink(),
    "a newer version": lambda path: forge(path, format=99),
    "absurd values": lambda path: forge(path, counters={"step": -1, "epoch": 1e400, "seconds": 0}),
    "settings of nothing": lambda path: forge(path, model=None),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_latest_falls_back_to_the_newest_that_is_whole_and_says_so(made, damage, caplog):
    DAMAGE[damage](made / "i20_l8")
    path, record = find_record("latest", made)
    assert (path.name, record.step) == ("i15_l8", 15)
    assert f"{made}/i20_l8" in caplog.text
    assert f"taking '{made}/i15_l8', the newest that is whole" in caplog.text
    DAMAGE[damage](made / "i15_l8")
    assert find("latest", made).name == "i10_l8"
    with pytest.raises(CharRNNError, match="i20_l8"):
        find("i20_l8", made)
    with pytest.raises(CharRNNError, match="i20_l8"):
        Sampler.from_checkpoint(made / "i20_l8")


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_best_leaves_out_what_is_damaged(made, damage, caplog):
    best = find("best", made)
    DAMAGE[damage](best)
    assert find("best", made) not in (best, None)
    assert best.name in caplog.text


@pytest.mark.slow
def test_a_config_of_another_model_is_refused_in_a_line(made):
    [path] = [path for path in list_checkpoints(made) if path.name == "i20_l8"]
    model = json.loads((path / "config.json").read_text(encoding="utf-8"))["model"]
    forge(path, model={**model, "hidden_size": 9})
    for use in (Sampler.from_checkpoint, lambda path: evaluate(path, TEXT)):
        with pytest.raises(CharRNNError, match=r"i20_l8' does not fit its own record: "):
            use(path)


@pytest.mark.slow
def test_where_all_are_damaged_the_newest_is_told(made):
    for path in list_checkpoints(made):
        flip(path / "variables.index")
    with pytest.raises(CharRNNError, match=r"i20_l8/variables.index' is damaged"):
        find("latest", made)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_goes_on_before_the_damage_and_makes_it_anew(made, rows_of_30_steps, damage, caplog):
    DAMAGE[damage](made / "i20_l8")
    DAMAGE[damage](made / "i10_l8")
    list(trainer(made, small(30), resume=True).run())
    assert "put aside as .i20_l8.damaged" in caplog.text
    assert [read_record(path).step for path in list_checkpoints(made)] == [5, 15, 20, 25, 30]
    assert sorted(path.name for path in made.glob(".*.damaged")) == [".i10_l8.damaged", ".i20_l8.damaged"]
    assert rows(made) == rows_of_30_steps


@pytest.mark.slow
def test_the_command_lists_and_samples_what_is_whole(made, text):
    flip(made / "i20_l8" / "config.json")
    code, out, err = run("checkpoints", "--checkpoint-dir", made)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["i5_l8", "i10_l8", "i15_l8"]
    assert err.count("\n") == 1
    assert "i20_l8/config.json' is damaged" in err
    code, out, err = run("sample", "--checkpoint-dir", made, "--length", "5", "--seed", "1")
    assert code == 0
    assert len(err.splitlines()) == 2


# ---- two at once


@pytest.mark.slow
def test_a_second_run_is_refused_while_the_first_lives_and_not_after_it_was_killed(text, tmp_path):
    folder = tmp_path / "run"
    first = start("train", text, *SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", folder)
    wait_for(lambda: saved(folder), first)
    for how in ((text, *SETTINGS), (text, "--overwrite"), ("--resume",)):
        code, out, err = run("train", *how, "--checkpoint-dir", folder)
        assert (code, out) == (1, "")
        assert re.fullmatch(rf"Error: another run is writing to '{folder}'\. Wait for it, [^\n]+\n", err), err
        assert saved(folder)
    first.kill()
    first.communicate()
    code, out, err = run("train", "--resume", "--max-steps", "20", "--checkpoint-dir", folder)
    assert code == 0, err


@pytest.mark.slow
def test_the_same_process_may_make_a_trainer_anew(tmp_path):
    first = trainer(tmp_path, small())
    again = trainer(tmp_path, small(), overwrite=True)  # a notebook's cell that is run once more
    list(again.run())
    with pytest.raises(CharRNNError, match="another run has written to"):
        list(first.run())


@pytest.mark.slow
def test_a_run_that_is_left_in_the_middle_frees_its_folder(tmp_path):
    going = trainer(tmp_path, small()).run()
    next(going)
    with pytest.raises(CharRNNError, match="another run is writing to"):
        trainer(tmp_path, small(), overwrite=True)
    going.close()
    list(trainer(tmp_path, small(), overwrite=True).run())


@pytest.mark.slow
def test_reading_while_a_run_saves_and_prunes_sees_whole_checkpoints(tmp_path):
    ended = []
    writer = trainer(tmp_path, small(1_000_000, save_every=1, keep=1, validate_every=3, log_every=1000))
    vocabulary = writer.vocabulary

    def write():
        for _ in writer.run():
            pass
        ended.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_for(lambda: saved(tmp_path))
        seen = set()
        end = time.monotonic() + 8
        while time.monotonic() < end:
            for which in ("latest", "best"):
                path, record = find_record(which, tmp_path)
                assert record.vocabulary == vocabulary
                seen.add(path.name)
            assert read_run(tmp_path)
        assert len(seen) > 5
        samples = [run("sample", "--checkpoint-dir", tmp_path, "--length", "5", "--seed", "1") for _ in range(2)]
        assert [code for code, _, _ in samples] == [0, 0], samples
    finally:
        writer.stop()
        thread.join(60)
    assert ended


# ---- signals


def begun(process):
    """Until the run has printed a row."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step"):
            return lines
    raise AssertionError(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_stops_within_two_seconds_even_in_a_validation(tmp_path, number, status):
    text = tmp_path / "long.txt"
    text.write_text(make_text(1_500_000, seed=5), encoding="utf-8")
    settings = (
        "--hidden-size",
        "256",
        "--batch-size",
        "8",
        "--num-steps",
        "16",
        "--validation-fraction",
        "0.6",
        "--log-every",
        "2",
    )
    process = start(
        "train", text, *settings, "--validate-every", "20", "--max-steps", "100000", "--checkpoint-dir", tmp_path / "run"
    )
    begun(process)
    time.sleep(3)  # into the validation of 900,000 characters, which takes far longer
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 4  # two, and what a process takes to end
    assert process.returncode == status
    assert "Stopped and saved" in err
    assert re.search(r"Go on with: charrnn-tf train --resume --checkpoint-dir \S+\n", err)
    record = read_record(out.strip())
    assert record.step == 20
    assert record.validation_loss is None
    assert all(row[0] != "20" for row in rows(tmp_path / "run"))


@pytest.mark.slow
def test_a_stop_in_the_middle_of_a_validation_changes_nothing(tmp_path, monkeypatch):
    run = trainer(tmp_path / "run", small())
    evaluate_all = run._evaluator.evaluate

    def interrupted(ids, stopped):
        run.stop()
        return evaluate_all(ids, stopped=stopped)

    monkeypatch.setattr(run._evaluator, "evaluate", interrupted)
    assert [row.step for row in run.run()] == [5]
    assert read_record(find("latest", tmp_path / "run")).step == 10
    assert list(trainer(tmp_path / "run", small(), resume=True).run())
    list(trainer(tmp_path / "whole", small()).run())
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_second_interrupt_does_not_wait(text, tmp_path):
    process = start("train", text, *SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", tmp_path / "run")
    begun(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert all(read_record(path) for path in saved(tmp_path / "run"))


@pytest.mark.slow
def test_a_terminal_that_is_closed_stops_the_run_as_sigterm_does(text, tmp_path):
    ours, theirs = pty.openpty()
    folder = tmp_path / "run"
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait",
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
    assert run("train", "--resume", "--max-steps", "5", "--checkpoint-dir", folder)[0] == 0


@pytest.mark.slow
def test_under_nohup_a_run_outlives_its_terminal(text, tmp_path):
    process = subprocess.Popen(
        ["nohup", *command("train", text, *SETTINGS, "--max-steps", "1000000", "--checkpoint-dir", tmp_path / "run")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


@pytest.mark.slow
def test_progress_that_nobody_reads_does_not_end_a_run(text, tmp_path):
    line = " ".join(command("train", text, *SETTINGS, "--max-steps", "300", "--checkpoint-dir", tmp_path / "run"))
    subprocess.run(["bash", "-c", f"{line} 2>&1 >/dev/null | head -n 1"], check=True, timeout=120, capture_output=True)
    assert saved(tmp_path / "run")[-1].name == "i300_l16"


# ---- numbers


@pytest.mark.slow
def test_what_is_not_finite_never_reaches_the_weights(tmp_path, monkeypatch, caplog):
    from charrnn_tf.training import step as steps

    loss = steps.window_loss

    def sometimes_none(model, config, rate, step, *rest):
        nats, state = loss(model, config, rate, step, *rest)
        return nats / tf_where(step % 4 == 1), state

    def tf_where(odd):
        import tensorflow as tf

        return tf.where(odd, 0.0, 1.0)

    monkeypatch.setattr(steps, "window_loss", sometimes_none)
    run = trainer(tmp_path, small(20))
    found = list(run.run())
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    assert all(np.isfinite(row.train_loss) for row in found)
    assert int(run.state.optimizer.iterations) == 15
    assert "were skipped: their loss or gradient was not finite" in caplog.text


@pytest.mark.slow
def test_after_many_in_a_row_the_run_ends_with_a_line(tmp_path, monkeypatch):
    from charrnn_tf.training import step as steps

    loss = steps.window_loss

    def none_from_12_on(model, config, rate, step, *rest):
        import tensorflow as tf

        nats, state = loss(model, config, rate, step, *rest)
        return tf.where(step >= 12, float("nan"), nats), state

    monkeypatch.setattr(steps, "window_loss", none_from_12_on)
    run = trainer(tmp_path, small(100))
    with pytest.raises(CharRNNError, match=r"not finite in 10 steps in a row, up to step 22, .*up to i\d+_l8 are good"):
        list(run.run())
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    assert all(read_record(path).step <= 20 for path in list_checkpoints(tmp_path))
    assert read_record(list_checkpoints(tmp_path)[-1])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
@pytest.mark.parametrize("rate", [100.0, 1e6])
def test_a_rate_that_is_far_too_high_never_ends_in_weights_that_are_no_numbers(tmp_path, optimizer, clip_norm, rate):
    config = small(
        100, learning_rate=rate, schedule="constant", warmup_steps=0, optimizer=optimizer, clip_norm=clip_norm, keep=1
    )
    run = trainer(tmp_path, config)
    told = ""
    try:
        list(run.run())
    except CharRNNError as error:
        told = str(error)
    assert not told or re.search("not finite in 10 steps .* --learning-rate", told)
    assert all(np.isfinite(weight).all() for weight in run.model.get_weights())
    assert all(np.isfinite(weight).all() for weight in Sampler.from_checkpoint(find("latest", tmp_path)).model.get_weights())


# ---- the text moved


@pytest.fixture
def two_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(TEXT[:3000] + "\n", encoding="utf-8")
    Path("b.txt").write_text(TEXT[3000:] + "\n", encoding="utf-8")
    assert run("train", "a.txt", "b.txt", *SETTINGS, "--max-steps", "10")[0] == 0
    return tmp_path


@pytest.mark.slow
def test_what_differs_in_the_text_is_told(two_files):
    def refusal(*text):
        code, out, err = run("train", *text, "--resume", "--max-steps", "20")
        assert (code, out) == (1, "")
        return error_line(err)

    assert "its files were read in another order" in refusal("b.txt", "a.txt")
    assert re.search(r"that had [\d,]+ characters in 2 files, this has 3,001 in 1\.", refusal("a.txt"))
    whole = Path("a.txt").read_text(encoding="utf-8")
    Path("a.txt").write_text(whole.replace("the", "THE", 1), encoding="utf-8")
    assert "a.txt' has changed. Pass the same text" in refusal()
    Path("a.txt").write_text(whole + "more", encoding="utf-8")
    assert "a.txt' has changed from 3,001 to 3,005 characters" in refusal()
    Path("a.txt").write_text(whole, encoding="utf-8")
    Path("a.txt").rename("moved.txt")
    assert run("train", "moved.txt", "b.txt", "--resume", "--max-steps", "20")[0] == 0
