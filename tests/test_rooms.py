"""The house: stages know no stages, imports run in no circle, rooms and files are of a size."""

import ast
import graphlib
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "gill", "data")
MOST_ENTRIES, MOST_LINES, MEDIAN_LINES = 12, 400, 150


@cache
def modules(root=ROOT):
    """Every module of the project by name."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path, known):
    """Modules of the project that a file imports: at its top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def circle(root=ROOT):
    """A circle of imports, or None."""
    known = modules(root)
    graph = {name: set(imports(path, known)) for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def test_imports_run_in_no_circle():
    assert circle() is None


def test_a_circle_through_a_function_is_seen(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text("from tasks.b import f\n")
    (tmp_path / "tasks" / "b.py").write_text("def f():\n    from tasks import a\n")
    assert circle(tmp_path) in {"tasks.a -> tasks.b -> tasks.a", "tasks.b -> tasks.a -> tasks.b"}


def test_a_stage_imports_no_stage():
    known = modules()
    for name, path in known.items():
        stages = {m for m in imports(path, known) if m.startswith("tasks.stages.")}
        assert not stages or name == "flows.pipeline", f"{name} imports {stages}"


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_of_a_size(package):
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for name, path in modules().items()
        if name.partition(".")[0] == package and path.name != "__init__.py"
    }
    longest = max(lines, key=lines.__getitem__)
    middle = median(lines.values())
    print(f"{package}: {len(lines)} files, median {middle:.0f}, {longest} {lines[longest]} lines")
    assert lines[longest] <= MOST_LINES
    assert middle <= MEDIAN_LINES


def test_rooms_are_of_a_size():
    entries = sorted(p.name for p in (ROOT / "tasks").iterdir() if p.name != "__pycache__")
    print(f"tasks: {len(entries)} entries: {', '.join(entries)}")
    assert len(entries) <= MOST_ENTRIES
