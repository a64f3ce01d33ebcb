"""Records a hash of each stage's code: ``python -m tasks.runner.versions`` after a change.

A hash in the fingerprint would make a comment cost days of GPU work, and a version raised by hand
is forgotten. So the version is raised by hand and a test compares the code with this record;
comments, docstrings and layout do not count. Which modules bear on a stage follows from the imports
of its module, those inside functions too.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from tasks.paths import ROOT
from tasks.runner.registry import stage_named, stage_names

RECORD = Path(__file__).with_name("versions.json")
_PACKAGES = ("tasks", "gill", "data")


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """The file of a module of this project, or None."""
    if module.partition(".")[0] not in _PACKAGES:
        return None
    path = root / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if c.exists()), None)


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Names of the modules, or of what is in them, that a syntax tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules_of(stage: str, root: Path = ROOT) -> list[str]:
    """The modules of this project that bear on a stage, sorted: those its module imports."""
    found: set[str] = set()
    wanted = [f"tasks.stages.{stage}"]
    while wanted:
        module = wanted.pop()
        path = file_of(module, root)
        if module in found or path is None:
            continue
        found.add(module)
        wanted += imported_by(ast.parse(path.read_text()))
    return sorted(found)


def code_hash(stage: str, root: Path = ROOT) -> str:
    """Hash of the syntax trees of the modules that bear on a stage's result."""
    digest = hashlib.sha256()
    for module in modules_of(stage, root):
        path = file_of(module, root)
        assert path is not None
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if (
                isinstance(body, list)
                and body
                and isinstance(body[0], ast.Expr)
                and isinstance(body[0].value, ast.Constant)
                and isinstance(body[0].value.value, str)
            ):
                body[0].value.value = ""
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def main() -> None:
    """Write the record."""
    record = {
        n: {"version": stage_named(n).declared.version, "code": code_hash(n)} for n in stage_names()
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
