import ast
import inspect
import subprocess
import sys
from pathlib import Path

import lowbit
from lowbit import _lowbit

PACKAGE = Path(lowbit.__file__).parent


def test_stubs_tell_what_is_there():
    tree = ast.parse((PACKAGE / "_lowbit.pyi").read_text())
    stubs = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            members = {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
            stubs[node.name] = {name for name in members if not name.startswith("__")}
        elif isinstance(node, ast.FunctionDef):
            stubs[node.name] = [a.arg for a in node.args.args + node.args.kwonlyargs]
        elif isinstance(node, ast.AnnAssign):
            stubs[node.target.id] = None
    there = {name: getattr(_lowbit, name) for name in dir(_lowbit) if not name.startswith("_")}
    assert set(stubs) == set(there)
    for name, value in there.items():
        if inspect.isclass(value):
            assert stubs[name] == {m for m in dir(value) if not m.startswith("_")}, name
        elif callable(value):
            assert stubs[name] == list(inspect.signature(value).parameters), name
    assert (PACKAGE / "py.typed").exists()


def test_methods_of_stubs_take_what_the_module_takes():
    tree = ast.parse((PACKAGE / "_lowbit.pyi").read_text())
    for node in tree.body:
        for method in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("__") and "property" not in ast.dump(method):
                found = inspect.signature(getattr(getattr(_lowbit, node.name), method.name)).parameters
                assert [a.arg for a in method.args.args + method.args.kwonlyargs] == list(found), method.name


def test_everything_public_is_named_and_documented():
    assert len(set(lowbit.__all__)) == len(lowbit.__all__) and all(hasattr(lowbit, name) for name in lowbit.__all__)
    for name in lowbit.__all__:
        value = getattr(lowbit, name)
        if callable(value):
            assert value.__doc__, name
    errors = [value for value in vars(lowbit).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(errors) > 5 and all(issubclass(error, lowbit.Error) for error in errors)


def test_importing_takes_no_numpy():
    program = "import sys, lowbit; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
