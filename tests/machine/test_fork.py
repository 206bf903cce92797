"""A model loaded before a fork: TensorFlow would wait for ever in the child, so every entry refuses in a line."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing, os, sys
import charrnn_tf as cr

def attempt(name, work):
    try:
        print(name, "worked:", work())
    except cr.CharRNNError as error:
        print(name, "refused:", error)

def child():
    for name, work in attempts.items():
        attempt(name, work)
        sys.stdout.flush()

folder, text = sys.argv[1:]
run = cr.open_run(folder)
fork = multiprocessing.get_context("fork")
if __name__ == "__main__":
    attempts = {"before": lambda: run.checkpoints[-1].name}
    process = fork.Process(target=child)
    process.start()
    process.join()
    sampler = cr.Sampler.from_checkpoint(run.latest)
    character, state = sampler.predict("a")
    path, ids = run.latest, sampler.vocabulary.encode(text)
    config = cr.TrainConfig(batch_size=2, num_steps=4, max_steps=4, log_every=2)
    trainer, begun = (cr.Trainer(sampler.config, config, sampler.vocabulary, ids, folder) for folder in ("new", "begun"))
    rows = begun.run()
    next(rows)
    attempts = {
        "sample": lambda: sampler.sample("a", 5), "chunks": lambda: next(sampler.chunks("a", 5)),
        "predict": lambda: sampler.predict("a"), "next": lambda: sampler.predict("a", state),
        "surprise": lambda: sampler.surprise(text), "load": lambda: cr.Sampler.from_checkpoint(path),
        "evaluate": lambda: cr.evaluate(path, text), "run": lambda: run.sample("a", 5), "score": lambda: run.evaluate(text),
        "trainer": lambda: list(trainer.run()), "next row": lambda: next(rows),
        "train": lambda: cr.train(text=text, max_steps=2, checkpoint_dir="other"),
        "export": lambda: run.export("exported"),
    }
    process = fork.Process(target=child)
    process.start()
    process.join(60)
    process.kill()
    print("parent", len(sampler.sample("a", 5)), os.path.exists("begun/.lock"), [row.step for row in rows][-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_model_loaded_before_a_fork_is_refused_in_a_line(made, tmp_path):
    arguments = [sys.executable, "-c", SCRIPT, str(made.parent), "a cab\n" * 20]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    first, *refused, last = done.stdout.splitlines()
    assert (first, last) == ("before worked: i7_l8", "parent 6 True 4"), done.stderr
    assert len(refused) == 13
    for line in refused:
        assert "refused: TensorFlow was started in process" in line
        assert "Load models after the fork" in line
