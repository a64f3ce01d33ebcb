"""Records a hash of each stage's code: ``python -m tasks.runner.versions`` after a deliberate change.

A hash in the fingerprint would make a comment cost days of GPU work, and a version raised by hand
is forgotten. So the version is raised by hand and a test compares the code with this record;
comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json

from tasks.paths import ROOT
from tasks.runner.registry import STAGES, Stage

RECORD = ROOT / "tasks" / "versions.json"


def code_hash(stage: Stage) -> str:
    """Hash of the syntax trees of the modules that bear on a stage's result."""
    digest = hashlib.sha256()
    for module in (f"tasks.{stage.name}", *stage.code):
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
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
    record = {n: {"version": s.version, "code": code_hash(s)} for n, s in STAGES.items()}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
