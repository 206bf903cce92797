"""The tables of docs/tutorials.md: their Python calls run from top to bottom, on a small text with small models."""

import functools
import re
from pathlib import Path

import pytest
from documents import PAGES

import charrnn_tf as cr
from charrnn_tf.settings.presets import PRESETS

PAGE = PAGES["docs/tutorials.md"]
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
SECTIONS = {title: section for title, section in SECTIONS.items() if "| step | command | Python |" in section}
STEPS = ("text", "vocabulary", "encode", "batches", "define", "train", "watch", "load", "sample|write", "weights")


def rows(section):
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_python_calls_run(section, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("ROMEO:\n" + cr.load_text()[:15_000], encoding="utf-8")
    monkeypatch.setattr(cr, "fetch_corpus", lambda name, directory: f"{directory}/text.txt")
    monkeypatch.setattr(cr, "preset", functools.partial(cr.preset, hidden_size=8, max_steps=4, batch_size=2, save_every=2))
    names = {"cr": cr}
    for _, _, call in rows(section):
        if call:
            exec(call.strip("`"), names)
    assert re.search(r"^4 \d\.\d+", capsys.readouterr().out, re.MULTILINE)  # step and loss
    assert len(names["written"]) >= 100


@pytest.mark.parametrize("section", SECTIONS)
def test_no_step_is_left_out(section):
    steps = " ".join(step for step, _, _ in rows(section))
    assert not [step for step in STEPS if not re.search(step, steps)]


def test_every_preset_of_a_tutorial_is_shown():
    assert len(SECTIONS) == 5
    assert {name for name in PRESETS if f"--preset {name}" in PAGE} == set(PRESETS) - {"default"}
