"""What imports what: TensorFlow only where it is needed, modules in one order, names that every system has."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import charrnn_tf

PACKAGE = Path(charrnn_tf.__file__).parent

# A module imports only those before it.
ORDER = (
    "errors", "files", "config", "vocabulary", "sources", "cache", "corpus", "fetch", "batches", "metrics",
    "record", "estimate", "runtime", "recipe", "rendezvous", "pages", "plots", "events",
    "peers", "layers", "replicas", "model", "checkpoint", "sampling", "evaluation", "export", "insight", "report", "foreign",
    "web", "torch_files", "tf1_files", "keras_files", "pace", "steps", "rundir", "importing", "training",
    "benchmark", "progress", "options", "output", "launch", "cli",
)  # fmt: skip
LIGHT = (
    "errors", "files", "config", "vocabulary", "sources", "cache", "corpus", "fetch", "batches", "metrics",
    "record", "estimate", "runtime", "recipe", "rendezvous", "pages", "plots", "events",
    "peers", "options", "output", "launch", "cli",
)  # fmt: skip
HEAVY = {"tensorflow", "keras"}
ONE_SYSTEM_ONLY = {
    "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses", "readline", "posix",
    "msvcrt", "winreg", "winsound", "_winapi", "nt",
}  # fmt: skip
PUBLIC = {
    "Vocabulary", "load_text", "one_hot", "windows", "ModelConfig", "TrainConfig", "build_model", "Trainer",
    "latest_checkpoint", "Sampler", "evaluate", "export_saved_model",
}  # fmt: skip


def statements(node, inside_functions):
    """All statements below a node that run, those of `if TYPE_CHECKING` left out."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        runs = ast.Module(child.orelse, []) if typing_only else child
        yield runs
        if inside_functions or not isinstance(runs, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(runs, inside_functions)


def imports(source, inside_functions=True):
    """The modules that a source imports: `.model` for one of the package's own, `tensorflow` for `tensorflow.x`."""
    found = set()
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level, node.module) in ((1, None), (0, "charrnn_tf")):
            names = [f".{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [f".{node.module}"]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            continue
        for name in names:
            own = name.startswith((".", "charrnn_tf."))
            found.add("." + name.removeprefix("charrnn_tf").split(".")[1] if own else name.split(".")[0])
    return found


def imports_of(module, inside_functions=True):
    return imports((PACKAGE / f"{module}.py").read_text(encoding="utf-8"), inside_functions)


def run(code):
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_imports_are_read_as_python_reads_them():
    source = (
        "import os.path, numpy as np\nfrom tensorflow.keras import x\nfrom . import a, b as c\nfrom .d import e\n"
        "from charrnn_tf.f import g\nfrom charrnn_tf import l\nif TYPE_CHECKING:\n    import unseen\nelse:\n    import m\n"
        "try:\n    import h\nexcept ImportError:\n    pass\nclass C:\n    import i\n"
        "def function():\n    from .j import k\n"
    )
    top = {"os", "numpy", "tensorflow", ".a", ".b", ".d", ".f", ".l", "m", "h", "i"}
    assert imports(source, inside_functions=False) == top
    assert imports(source) == {*top, ".j"}


def test_every_module_has_its_place_in_the_order():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_those_before_it(module):
    own = {name.removeprefix(".") for name in imports_of(module) if name.startswith(".")}
    assert own <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_imports_neither_tensorflow_nor_a_module_that_does(module):
    top = imports_of(module, inside_functions=False)
    assert not top & HEAVY
    assert {name for name in top if name.startswith(".")} <= {f".{light}" for light in LIGHT}


@pytest.mark.parametrize("module", ["errors", "config", "vocabulary"])
def test_the_first_modules_never_import_tensorflow(module):
    assert not imports_of(module) & HEAVY


@pytest.mark.parametrize("module", [*ORDER, "__init__", "__main__"])
def test_a_module_imports_nothing_that_only_one_system_has(module):
    assert not imports_of(module, inside_functions=False) & ONE_SYSTEM_ONLY


def test_the_command_and_all_light_modules_load_without_tensorflow():
    code = f"import sys\nfor name in {LIGHT}: __import__('charrnn_tf.' + name)\nprint(*sorted(sys.modules))"
    loaded = run(code).split()
    assert {f"charrnn_tf.{name}" for name in LIGHT} <= set(loaded)
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


def test_importing_the_command_leaves_tensorflow_out():
    assert (
        run("import charrnn_tf.cli.main, sys; print([name in sys.modules for name in ('tensorflow', 'keras')])")
        == "[False, False]\n"
    )


def test_a_light_public_name_loads_only_its_own_module():
    code = "import charrnn_tf, sys; charrnn_tf.Vocabulary; print(*sys.modules)"
    loaded = run(code).split()
    assert "charrnn_tf.text.vocabulary" in loaded
    assert not {"charrnn_tf.text.corpus", "charrnn_tf.network.model", *HEAVY} & set(loaded)


def test_the_public_names_are_listed():
    assert set(charrnn_tf.__all__) >= PUBLIC
    assert len(set(charrnn_tf.__all__)) == len(charrnn_tf.__all__)
    assert set(charrnn_tf.__all__) <= set(dir(charrnn_tf))


@pytest.mark.parametrize("name", sorted({*charrnn_tf.__all__, *PUBLIC}))
def test_a_public_name_resolves_to_what_it_says(name):
    value = getattr(charrnn_tf, name)
    assert value.__name__ == name
    assert value.__module__.startswith("charrnn_tf.")
    assert value.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'charrnn_tf' has no attribute 'Samplr'"):
        _ = charrnn_tf.Samplr
