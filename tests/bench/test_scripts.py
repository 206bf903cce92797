"""The scripts in tests/benchmarks: what they import from the package exists. Most of them take minutes."""

import ast
import runpy
from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_script_imports_names_that_exist(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("charrnn_tf"):
            module = import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    import_module(f"{node.module}.{alias.name}")


def test_the_table_of_choices_is_up_to_date(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["choices.py"])
    runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "choices.py"), run_name="__main__")
    table = capsys.readouterr().out
    assert len(table.splitlines()) == 9
    assert table in (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
