"""The Python blocks of each page run, one after another, in an empty folder."""

import pytest
from documents import PAGES, blocks


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert "The " in printed
    assert (tmp_path / "my-run" / "metrics.csv").is_file()
    assert (tmp_path / "my-model" / "saved_model.pb").is_file()
    if page == "docs/python.md":
        assert "512 128 5" in printed
    if page == "docs/savedmodel.md":
        assert names["written"]["text"][0].numpy().decode().startswith("The ")
