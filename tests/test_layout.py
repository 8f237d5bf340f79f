"""The house keeps its order: who may import whom, how long files and functions get, what is never called.

The rooms and their order are drawn in docs/architecture.md.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYTHON = [*SOURCES, *sorted((ROOT / "scripts").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]

# room -> rooms of the same package that it may import. A new room is put here on purpose.
HEAVY = {
    "tasks": set(),
    "models": set(),
    "tickets": set(),
    "adapters": {"tickets"},
    "training": {"adapters"},
    "evaluation": {"tasks"},
    "forgetting": {"tasks", "evaluation"},
    "pictures": {"adapters"},
    "exporting": {"adapters", "models"},
    "methods": {"adapters", "training", "models", "tickets"},
}
LIGHT = {"config": set(), "records": set(), "tables": {"records", "config"}}
ROOMS = {"tombola": HEAVY, "tombola_cli": LIGHT}
LIGHT_LIBRARIES = {"hydra", "omegaconf", "rich", "yaml", "filelock"}  # all of tombola_cli imports in under a second
LONGEST_FILE, MEDIAN_FILE, LONGEST_FUNCTION = 300, 100, 50


@dataclass(frozen=True)
class Import:
    module: str
    late: bool  # inside a function: runs when it is called
    for_types: bool  # under TYPE_CHECKING: never runs


def imports(source: str, package: str = "") -> Iterator[Import]:
    """Every import of a file of `package`, relative ones spelled out; `from a import b` counts as `a` and as `a.b`."""

    def visit(node: ast.AST, late: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, late, for_types) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                parts = package.split(".")[: -child.level + 1 or None] if child.level else []
                module = ".".join([*parts, *([child.module] if child.module else [])])
                yield Import(module, late, for_types)
                yield from (Import(f"{module}.{alias.name}", late, for_types) for alias in child.names)
            types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, late or inside, for_types or types)

    yield from visit(ast.parse(source), late=False, for_types=False)


def imports_of(path: Path) -> list[Import]:
    return list(imports(path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT / "src").parts[:-1])))


def place(path: Path) -> tuple[str, str | None]:
    """Package and room of a source file; None for the files beside the rooms."""
    parts = path.relative_to(ROOT / "src").parts
    return parts[0], parts[1] if len(parts) > 2 else None


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of every function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_imports_are_all_seen():
    source = (
        "import a.b\nif TYPE_CHECKING:\n    from c import d\ndef f():\n    from ..e import g\n    from . import h\n"
    )
    found = {(i.module, i.late, i.for_types) for i in imports(source, "p.q")}
    assert {("a.b", False, False), ("c", False, True), ("p.e", True, False), ("p.q.h", True, False)} <= found


def test_every_room_is_in_the_order():
    rooms = {place(path) for path in SOURCES} - {("tombola", None), ("tombola_cli", None)}
    assert rooms == {(package, room) for package, order in ROOMS.items() for room in order}


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in ROOMS for room in ROOMS[package]])
def test_a_room_sees_only_rooms_before_it(package, room):
    seen = {
        (path.name, imported.module)
        for path in SOURCES
        if place(path) == (package, room)
        for imported in imports_of(path)
        if imported.module.split(".")[0] == package and imported.module != package
    }
    allowed = {f"{package}.{other}" for other in {room, *ROOMS[package][room]}}
    assert not {(file, module) for file, module in seen if ".".join(module.split(".")[:2]) not in allowed}


def test_rooms_import_nothing_from_the_package_itself():
    """`from tombola import x` goes through `__init__`, which needs the adapters first: a circle."""
    assert not {path for path in SOURCES if place(path)[1] for i in imports_of(path) if i.module in ROOMS}


def test_only_run_sees_the_methods():
    users = {
        path.name
        for path in SOURCES
        if place(path)[1] != "methods"
        for i in imports_of(path)
        if i.module == "tombola.methods"
    }
    assert users <= {"run.py"}


def test_the_command_line_is_light():
    """Help, checks, identity and tables answer before torch could be imported, and without `import tombola`."""
    light = sys.stdlib_module_names | LIGHT_LIBRARIES | {"tombola_cli"}
    heavy = {
        (str(path.relative_to(ROOT)), imported.module)
        for path in SOURCES
        if place(path)[0] == "tombola_cli"
        for imported in imports_of(path)
        if not imported.late and not imported.for_types and imported.module.split(".")[0] not in light
    }
    assert not heavy


def test_the_light_rooms_never_reach_the_heavy_package():
    """Only the files that start a run may, late."""
    reaching = {
        path.name
        for path in SOURCES
        if place(path)[0] == "tombola_cli" and place(path)[1]
        for imported in imports_of(path)
        if imported.module.split(".")[0] == "tombola"
    }
    assert not reaching


def test_the_heavy_rooms_do_not_know_the_command_line():
    users = {place(path)[1] for path in SOURCES for i in imports_of(path) if i.module.startswith("tombola_cli")}
    assert not users & (set(HEAVY) - {"models"}), "models may read layer shapes"


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    sources = [lengths[str(path.relative_to(ROOT))] for path in SOURCES]
    assert statistics.median(sources) < MEDIAN_FILE


def test_functions_are_short():
    long = {
        (str(path.relative_to(ROOT)), name, lines)
        for path in PYTHON
        for name, lines in functions(path.read_text(encoding="utf-8"))
        if lines > LONGEST_FUNCTION
    }
    assert not long


def unsafe_calls(source: str) -> set[str]:
    """Ways of reading that run what a file says."""
    found = {i.module for i in imports(source) if i.module.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve")}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if (name := ast.unparse(node.func)) in (
            "torch.load",
            "eval",
            "exec",
            "yaml.load",
            "yaml.unsafe_load",
            "np.load",
        ):
            found.add(name)
        found |= {
            "trust_remote_code"
            for k in node.keywords
            if k.arg == "trust_remote_code" and ast.unparse(k.value) != "False"
        }
    return found


def test_unsafe_calls_are_all_seen():
    source = "import pickle\ntorch.load(x)\nA.from_pretrained(y, trust_remote_code=True)\nB(trust_remote_code=False)\n"
    assert unsafe_calls(source) == {"pickle", "torch.load", "trust_remote_code"}


def test_nothing_that_is_read_can_run():
    unsafe = {
        str(path.relative_to(ROOT)): found
        for path in SOURCES
        if (found := unsafe_calls(path.read_text(encoding="utf-8")))
    }
    assert not unsafe
