"""The architecture: rooms in one order, optional rooms that can be deleted, and TensorFlow only where it is needed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_text

import charrnn_tf
from charrnn_tf.cli.main import cli

PACKAGE = Path(charrnn_tf.__file__).parent
TOP = ("errors", "files", "pages")  # modules beside the rooms
MAIN_PATH = ("settings", "text", "machine", "network", "runs", "inference", "training")  # each may import those before it
OPTIONAL = ("distributed", "formats", "insight", "bench", "service")  # import the main path, and never each other
SHELL = ("api", "cli")  # import all before them, optional rooms only inside functions (a command's file: also at its top)
ROOMS = (*MAIN_PATH, *OPTIONAL, *SHELL)
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
HEAVY = {"tensorflow", "keras"}
# Modules that work without TensorFlow: `--help`, reading a text and looking at a run must be quick
LIGHT = (
    *TOP, "settings.schema", "settings.presets", "settings.merge", "settings.recipe", "text.names", "text.sources",
    "text.detection", "text.vocabulary", "text.cache", "text.corpus", "text.catalog", "text.windows",
    "machine.hardware", "machine.startup", "machine.speed", "machine.estimate", "runs.record", "runs.find", "runs.metrics",
    "runs.chart", "distributed.cluster", "formats.exporting", "insight.plots", "insight.tensorboard", "service.address",
    "api.launch", "api.progress", "cli.main",
)  # fmt: skip
ONE_SYSTEM_ONLY = {
    "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses", "readline", "posix",
    "msvcrt", "winreg", "winsound", "_winapi", "nt",
}  # fmt: skip
PUBLIC = {
    "Vocabulary", "load_text", "one_hot", "windows", "ModelConfig", "TrainConfig", "build_model", "Trainer",
    "latest_checkpoint", "Sampler", "evaluate", "score_lines", "export_saved_model",
}  # fmt: skip


def statements(node, inside_functions):
    """All statements below a node that run; those of `if TYPE_CHECKING` don't."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        runs = ast.Module(child.orelse, []) if typing_only else child
        yield runs
        if inside_functions or not isinstance(runs, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(runs, inside_functions)


def imports(source, module, inside_functions=True):
    """Imported modules: `.room.file` for the package's own, the top-level name for others. module: path in the package."""
    found = set()
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            here = ("charrnn_tf", *module.parts[:-1])
            base = ".".join((*here[: len(here) - node.level + 1], *((node.module or "").split(".") if node.module else ())))
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            own = name.startswith("charrnn_tf.")
            found.add("." + ".".join(name.split(".")[1:3]) if own else name.split(".")[0])
    return found


def imports_of(module, inside_functions=True):
    return imports((PACKAGE / module).read_text(encoding="utf-8"), module, inside_functions)


def rooms_imported(module, inside_functions=True):
    return {name.split(".")[1] for name in imports_of(module, inside_functions) if name.startswith(".")} & set(ROOMS)


def run(code, **how):
    """Output of a fresh interpreter."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, **how).stdout


def test_imports_are_read_as_python_reads_them():
    source = (
        "import os.path, numpy as np\nfrom tensorflow.keras import x\nfrom . import a, b as c\nfrom ..d.e import f\n"
        "from charrnn_tf.g.h import i\nfrom .. import j\nif TYPE_CHECKING:\n    import unseen\nelse:\n    import m\n"
        "try:\n    import k\nexcept ImportError:\n    pass\nclass C:\n    import l\n"
        "def function():\n    from .n import o\n"
    )
    top = {"os", "numpy", "tensorflow", ".room.a", ".room.b", ".d.e", ".g.h", ".j", "m", "k", "l"}
    assert imports(source, Path("room/file.py"), inside_functions=False) == top
    assert imports(source, Path("room/file.py")) == {*top, ".room.n"}


def test_every_folder_is_a_room_and_every_module_is_in_one():
    folders = {path.parts[0] for path in MODULES if len(path.parts) > 1}
    assert folders == set(ROOMS)
    assert {path.stem for path in MODULES if len(path.parts) == 1} == {*TOP, "__init__", "__main__"}
    assert max(len(path.parts) for path in MODULES) == 2


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_begins_with_one_paragraph_and_nothing_else(room):
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1
    assert "\n\n" not in ast.get_docstring(tree)


@pytest.mark.parametrize("module", [path for path in MODULES if len(path.parts) > 1], ids=str)
def test_a_module_imports_only_rooms_above_its_own(module):
    room = module.parts[0]
    above = {*ROOMS[: ROOMS.index(room)], room}
    if room in OPTIONAL:
        above = {*MAIN_PATH, room}
    assert rooms_imported(module) <= above


@pytest.mark.parametrize("module", [path for path in MODULES if path.parts[0] in SHELL], ids=str)
def test_optional_rooms_are_loaded_only_where_they_are_used(module):
    command_of = {module.stem} if module.parts[0] == "cli" else set()
    assert rooms_imported(module, inside_functions=False) & set(OPTIONAL) <= command_of


@pytest.mark.parametrize("module", TOP)
def test_the_top_modules_import_no_room(module):
    assert not rooms_imported(Path(f"{module}.py"))


def test_modules_and_functions_stay_small():
    for module in MODULES:
        source = (PACKAGE / module).read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 350, module
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{module}: {node.name}"


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_imports_no_tensorflow_at_its_top(module):
    assert not imports_of(Path(*module.split(".")).with_suffix(".py"), inside_functions=False) & HEAVY


def test_the_command_and_all_light_modules_load_without_tensorflow():
    code = (
        f"import sys\nfor name in {(*LIGHT, *ROOMS)}: __import__('charrnn_tf.' + name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'keras')])"
    )
    assert run(code) == "[]\n"


def test_a_light_public_name_loads_only_its_own_room():
    loaded = run("import charrnn_tf, sys; charrnn_tf.Vocabulary; print(*sys.modules)").split()
    assert "charrnn_tf.text.vocabulary" in loaded
    assert not {"charrnn_tf.text.corpus", "charrnn_tf.network.model", *HEAVY} & set(loaded)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_nothing_that_only_one_system_has(module):
    assert not imports_of(module, inside_functions=False) & ONE_SYSTEM_ONLY


# Optional rooms can be deleted


def without(rooms, folder):
    """A copy of the package without some rooms and their commands -> environment of processes that import it."""
    copy = folder / "charrnn_tf"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for room in rooms:
        shutil.rmtree(copy / room)
        (copy / "cli" / f"{room}.py").unlink(missing_ok=True)
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("room", OPTIONAL)
def test_without_an_optional_room_the_other_commands_are_there(room, tmp_path):
    environment = without([room], tmp_path)
    listed = "import charrnn_tf.cli.main as m; print(m.__file__); print(*m.cli.commands)"
    file, commands = run(listed, env=environment, cwd=tmp_path).splitlines()
    gone = {
        "formats": {"export", "import"},
        "insight": {"report", "plot"},
        "bench": {"benchmark"},
        "service": {"serve"},
    }.get(room, set())
    every = set(cli.commands)
    assert Path(file).is_relative_to(tmp_path)
    assert set(commands.split()) == every - gone
    assert gone < every


@pytest.mark.slow
def test_the_main_path_trains_samples_and_evaluates_without_any_optional_room(tmp_path):
    environment = without(OPTIONAL, tmp_path) | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    (tmp_path / "text.txt").write_text(make_text(3000, seed=3), encoding="utf-8")
    code = """
import sys
from charrnn_tf.cli.main import cli
tiny = ["--hidden-size", "8", "--batch-size", "4", "--num-steps", "8", "--quiet"]
for arguments in (
    ["train", "text.txt", "--max-steps", "10", *tiny],
    ["train", "--resume", "--max-steps", "12", "--quiet"],
    ["sample", "--length", "20", "--seed", "1"],
    ["evaluate", "text.txt"],
    ["checkpoints"],
):
    cli.main(arguments, standalone_mode=False)
assert not [name for name in sys.modules if name.split(".")[1:2] and name.split(".")[:2] in ROOMS], sys.modules
""".replace("ROOMS", repr([["charrnn_tf", room] for room in OPTIONAL]))
    printed = run(code, env=environment, cwd=tmp_path)
    assert "checkpoints/i10_l8\ncheckpoints/i12_l8\n" in printed
    assert " nats per character" in printed


# The public names


def test_the_public_names_are_listed():
    assert set(charrnn_tf.__all__) >= PUBLIC
    assert len(set(charrnn_tf.__all__)) == len(charrnn_tf.__all__)
    assert set(charrnn_tf.__all__) <= set(dir(charrnn_tf))


@pytest.mark.parametrize("name", sorted({*charrnn_tf.__all__, *PUBLIC}))
def test_a_public_name_resolves_to_its_object(name):
    value = getattr(charrnn_tf, name)
    assert value.__name__ == name
    assert value.__module__.startswith("charrnn_tf.")
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'charrnn_tf' has no attribute 'Samplr'"):
        _ = charrnn_tf.Samplr
