"""`charrnn-tf export` and `charrnn-tf import`."""

import re
from pathlib import Path

import pytest
from commandline import TEXT, TINY, call, refuse, succeed

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.slow
def test_export_prints_the_path_and_replaces_an_older_one(copy):
    assert succeed("export", "--output", "model") == "model\n"
    assert Path("model/saved_model.pb").is_file()
    (Path("model") / "old").write_text("old", encoding="utf-8")
    assert succeed("export", "-o", "model", "--checkpoint", "i4_l8") == "model\n"
    assert not Path("model/old").exists()
    assert not list(Path().glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("text", [(), ("--text", "text.txt")])
def test_export_of_a_page_says_how_much_loss_its_weights_add(copy, text):
    result = call("export", "--format", "web", "-o", "model.html", *text)
    assert (result.exit_code, result.stdout) == (0, "model.html\n")
    characters = len(TEXT) if text else len(TEXT) // 10  # the run's held-out part
    added = rf"they add [+-]0\.\d{{4}} nats per character, measured on {characters:,} characters"
    assert re.fullmatch(rf"(8|16)-bit weights \({added}\); 0\.\d MB\.\n", result.stderr)
    assert Path("model.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.usefixtures("instant")
def test_export_of_a_page_without_a_text_takes_16_bits(empty):
    succeed("train", "-", *TINY, "--max-steps", 2, "--quiet", stdin=TEXT)
    result = call("export", "--format", "web", "-o", "model.html")
    assert result.stderr.startswith("16-bit weights (pass --text to measure the loss they add); ")


@pytest.mark.parametrize(("kind", "output"), [("keras", "model.keras"), ("torch", "model.net")])
@pytest.mark.usefixtures("instant")
def test_formats_of_characters_refuse_bytes(empty, kind, output):
    succeed("train", "text.txt", *TINY, "--vocabulary", "bytes", "--max-steps", 2, "--quiet")
    error = refuse("export", "--format", kind, "-o", output)
    assert kind in error
    assert "bytes" in error
    assert "savedmodel, onnx or web" in error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export --output model", "no checkpoints in 'checkpoints'"),
        ("export --checkpoint-dir RUN --output folder", "'folder' exists and is not a SavedModel"),
        ("export --checkpoint-dir RUN --output text.txt", "'text.txt' exists and is not a SavedModel"),
        ("export --checkpoint-dir RUN --output text.txt/model", "can't write 'text.txt/model'"),
        ("export --checkpoint-dir RUN --output .", "'.' exists and is not a SavedModel"),
        ("export --checkpoint-dir RUN --format keras -o missing/a.keras", "can't write 'missing/a.keras': no such file or"),
        ("export --checkpoint-dir RUN --format onnx -o missing/a.onnx", "can't write 'missing/a.onnx': no such file or"),
        ("export --checkpoint-dir RUN --format web -o missing/a.html", "can't write 'missing/a.html': no such file or"),
        ("import missing.net", "missing.net"),
        ("import text.txt --vocabulary-file missing.json", "can't read 'missing.json': no such file or directory"),
        ("import text.txt", "'text.txt'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(odd_files, home, command, message):
    run = str(home / "checkpoints")
    assert message in refuse(*command.replace("RUN", run).split())
