"""README's Python blocks run as they stand, one after another, and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from charrnn_tf.cli.main import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    lines = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    pieces = [piece.strip() for line in lines for piece in re.split(r"&&|\|", line)]
    return [piece for piece in pieces if re.match(r"(\.venv/bin/)?charrnn-tf ", piece)]


@pytest.mark.slow
def test_the_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "50 " in printed
    assert (tmp_path / "my-model" / "saved_model.pb").is_file()
    assert names["written"]["text"][0].numpy().decode().startswith("The ")


@pytest.mark.parametrize("command", commands())
def test_every_option_in_a_command_exists(command):
    name, *arguments = shlex.split(command)[1:]
    known = {option for parameter in cli.commands[name].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_the_first_two_blocks_are_one_line_each():
    first, second = blocks("sh")[:2]
    assert first.count("\n") == second.count("\n") == 1
    assert "charrnn-tf train" in first
    assert "pytest" in second


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_is_documented(command):
    assert f"charrnn-tf {command}" in README
