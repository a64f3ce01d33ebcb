"""The record of the code that bears on each stage, and what has changed since it was written.

python -m tasks.runner.versions                  what changed, for which stages
python -m tasks.runner.versions accept mapper    the change does not alter what mapper makes
python -m tasks.runner.versions accept all       nor what any stage makes

A hash in the fingerprint would make a comment cost days of GPU work, and a version raised by hand
is forgotten. So the version in a stage's file is raised by hand, and a test compares the code with
this record. Where a result changes, raise the version of the stages whose result it is, and accept
the change for all that were asked about: each stage is recorded for itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.paths import ROOT
from tasks.runner.code_slices import slices, version
from tasks.runner.names import stage_names

RECORD = Path(__file__).with_name("versions.json")


@dataclass(frozen=True)
class Change:
    """What differs for a stage from its record.

    Attributes:
        version: recorded and present, where they differ. modules: whose code differs.
    """

    version: tuple[int, int] | None
    modules: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.version is not None or bool(self.modules)

    def __str__(self) -> str:
        told = [f"version {self.version[0]} -> {self.version[1]}"] if self.version else []
        return ", ".join([*told, *self.modules])


def described(stage: str, root: Path = ROOT) -> dict[str, Any]:
    """What is recorded of a stage."""
    return {"version": version(stage, root), "code": slices(stage, root)}


def change(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Change:
    """What differs between a record and the present code."""
    then, code = recorded.get("code", {}), now["code"]
    versions = recorded.get("version", 0), now["version"]
    modules = [name for name in sorted({*then, *code}) if then.get(name) != code.get(name)]
    return Change(versions if versions[0] != versions[1] else None, tuple(modules))


def read() -> dict[str, Any]:
    """The record."""
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {}


def main() -> int:
    """Show or accept what changed."""
    parser = argparse.ArgumentParser(prog="python -m tasks.runner.versions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command")
    accepting = commands.add_parser("accept", help="record that results stay, or their version")
    accepting.add_argument("stages", nargs="+", choices=[*stage_names(), "all"], metavar="STAGE")
    given = parser.parse_args()
    record = read()
    accepted = given.stages if given.command else []
    asked = 0
    for stage in stage_names():
        now = described(stage)
        found = change(record.get(stage, {}), now)
        if found and {stage, "all"} & set(accepted):
            record[stage] = now
            print(f"{stage}: recorded {found}")
        elif found:
            asked += 1
            print(f"{stage}: {found}")
    if accepted:
        known = {stage: record[stage] for stage in stage_names() if stage in record}
        RECORD.write_text(json.dumps(known, indent=1) + "\n")
    elif asked:
        print("\nRaise the version of a stage whose result changes; then accept the change for it.")
    return int(bool(asked))


if __name__ == "__main__":
    sys.exit(main())
