"""Tests mirror the code: each module with logic has a test file at its place, or says where."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "gill", "tasks", "flows")
LOGIC = 15  # statements in functions; a module with more has a file of its own

# Tested elsewhere, mostly through what uses them. Give one a file of its own, then delete its line.
TESTED_IN = {
    # The readers of stories and dialogues test it.
    "data/benchmarks/skips.py": "data/benchmarks/test_vist.py",
    # The stage as a whole tests them, with real sources, servers and MLflow.
    "tasks/runner/record.py": "tasks/runner/test_execution.py",
    # Run once; what it made is tested.
    "data/embedded/build_pack.py": "data/sources/test_embedded_pack.py",
    # They start servers and processes; one set of these serves all their tests.
    "flows/cli/runs.py": "flows/test_cli.py",
    "flows/local/follow.py": "flows/local/test_services.py",
    "flows/local/run.py": "flows/local/test_services.py",
    "flows/local/summary.py": "flows/test_summary.py",
    "flows/local/temporary.py": "flows/test_pipeline.py",
    "gill/backbones/language_checks.py": "gill/backbones/test_families.py",
    "gill/backbones/pipelines.py": "gill/backbones/test_image_generator.py",
    "gill/backbones/testing/micro_generators.py": "gill/backbones/test_image_generator.py",
    "gill/backbones/testing/families.py": "gill/backbones/test_families.py",
    # What loads a model finds it first.
    "tasks/inference/sources.py": "tasks/inference/test_loading.py",
    "tasks/runner/pipeline_run.py": "flows/test_pipeline.py",
    "tasks/runner/status.py": "flows/cli/test_status.py",
    "tasks/runner/worker.py": "tasks/runner/test_launcher.py",
}


def statements(path):
    """Statements inside the functions of a module."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return sum(isinstance(n, ast.stmt) for f in functions for n in ast.walk(f)) - len(functions)


MODULES = {
    path.relative_to(ROOT).as_posix(): statements(path)
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
}


def mirror(module):
    path = Path(module)
    return ROOT / "tests" / path.parent / f"test_{path.name}"


@pytest.mark.parametrize("module", sorted(name for name, n in MODULES.items() if n > LOGIC))
def test_a_module_with_logic_has_a_test_file(module):
    if module not in TESTED_IN:
        assert mirror(module).exists(), f"write {mirror(module).relative_to(ROOT)}"


def test_each_exception_is_needed_and_says_where():
    for module, place in TESTED_IN.items():
        assert module in MODULES, f"{module} is gone: delete its line"
        assert not mirror(module).exists(), f"{module} has a test file now: delete its line"
        assert (ROOT / "tests" / place).exists(), f"{module} is said to be tested in {place}"


def test_each_test_file_is_at_the_place_of_some_code():
    for path in (ROOT / "tests").rglob("test_*.py"):
        room = path.parent.relative_to(ROOT / "tests")
        assert (ROOT / room).is_dir(), f"{path.relative_to(ROOT)} mirrors no folder"
