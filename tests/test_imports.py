"""Imports go one way: flows -> tasks -> {gill, data}; gill and data do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "gill": {"gill"},
    "data": {"data"},
    "tasks": {"tasks", "gill", "data"},
    "flows": {"flows", "tasks", "gill", "data"},
}
# One place knows Prefect, one knows MLflow, one loads weights.
ONLY_IN = {
    "mlflow": {"tasks/tracking/mlflow_runs.py", "tasks/tracking/mlflow_log.py",
               "tasks/tracking/databases.py"},
    "diffusers": {"gill/backbones/image_generator.py", "gill/backbones/pipelines.py",
                  "gill/backbones/testing/micro_generators.py",
                  "gill/backbones/embedded/generator.py",
                  "gill/backbones/testing/micro_models.py",
                  "gill/backbones/testing/published.py"},
}  # fmt: skip


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = {m.split(".")[0] for m in imported(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_one_place_knows_each_library(library):
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if library in {m.split(".")[0] for m in imported(path)}:
                assert name in ONLY_IN[library], f"{name} imports {library}"


def test_gill_and_data_know_neither_prefect_nor_mlflow():
    for package in ("gill", "data"):
        for path in (ROOT / package).rglob("*.py"):
            assert not {m.split(".")[0] for m in imported(path)} & {"prefect", "mlflow"}, path
