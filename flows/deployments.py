"""What is derived from the stages' own files: the deployments and the table of stages.

python -m flows.deployments     writes prefect.yaml and docs/reference/stages.md; a test compares
"""

from __future__ import annotations

from collections.abc import Iterator

from flows.pipeline import dag
from tasks.paths import ROOT
from tasks.runner.stage import Stage

DEPLOYMENTS = ROOT / "prefect.yaml"
TABLE = ROOT / "docs" / "reference" / "stages.md"
_HEAD = """\
# Made by `python -m flows.deployments` from the stages; `prefect deploy --all` from the root of the
# checkout. There is no `pull` section on purpose: the deployments then run from the folder they
# were deployed from, wherever that is.
name: gill

definitions:
  work_pool: &pool
    name: gill

deployments:
"""
_OVERRIDES = {
    "staged": "{}",
    "joint": "{schedule: joint}",
    "imported": "{schedule: imported, model: ''}",
}
_TABLE_HEAD = """\
# Stages

Made by `python -m flows.deployments` from `tasks/stages/<stage>.py`; a test keeps it current. A
stage runs alone with `prefect deployment run gill/<stage> --watch`.

| stage | what it makes | of | as | frozen parts | model in MLflow | version |
|---|---|---|---|---|---|---|
"""


def stages() -> list[tuple[Stage, str]]:
    """Every stage with the schedule that has it, the staged ones first, in the order of the DAG."""
    found: dict[str, tuple[Stage, str]] = {}
    for schedule in _OVERRIDES:
        for name, stage in dag(schedule).stages.items():
            found.setdefault(name, (stage, schedule))
    return list(found.values())


def deployments() -> str:
    """The text of ``prefect.yaml``."""
    return _HEAD + "".join(_deployments())


def _deployments() -> Iterator[str]:
    pipeline = "flows.pipeline.gill"
    everything = "Every stage that is not there yet, in the order of the DAG"
    yield _deployment("full-pipeline", everything, pipeline, _parameters("{}", "null"))
    for stage, schedule in stages():
        parameters = _parameters(_OVERRIDES[schedule], stage.name)
        yield _deployment(stage.name, stage.declared.description, pipeline, parameters)
    sweeps = "Sweeps of the mapper's kind and the number of [IMG] tokens, over seeds"
    parameters = "{recipe: embedded, seeds: 3, adapters_too: false, overrides: {}}"
    yield _deployment("ablation", sweeps, "flows.ablation.ablation", parameters)


def _parameters(overrides: str, stage: str) -> str:
    return f"{{recipe: embedded, overrides: {overrides}, stage: {stage}, force: false}}"


def _deployment(name: str, description: str, entrypoint: str, parameters: str) -> str:
    return (
        f"  - name: {name}\n"
        f"    description: {description}\n"
        f"    entrypoint: {entrypoint}\n"
        f"    parameters: {parameters}\n"
        "    work_pool: *pool\n"
    )


def table() -> str:
    """The text of ``docs/reference/stages.md``."""
    rows = []
    for stage, _ in stages():
        declared = stage.declared
        needs = ", ".join(kind.__name__ for kind in stage.needs.values())
        cells = (
            f"`{stage.name}`", declared.description, needs, stage.makes.__name__,
            ", ".join(declared.parts), declared.model or "", str(declared.version),
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |\n")
    return _TABLE_HEAD + "".join(rows)


def main() -> None:
    """Write both."""
    DEPLOYMENTS.write_text(deployments())
    TABLE.write_text(table())


if __name__ == "__main__":
    main()
