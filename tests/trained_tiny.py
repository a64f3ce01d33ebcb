"""A tiny model that the stages trained, for the tests that use one."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.tracking.stage_log import ConsoleLog


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``var`` folder in which every stage of the tiny recipe ran once, without Prefect."""
    from flows.pipeline import dag
    from flows.recipes import tiny
    from tasks.runner.dag import plan
    from tasks.runner.execution import Execution
    from tasks.runner.record import StageRecord
    from tasks.tracking import mlflow_runs

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(folder))
        parent = mlflow_runs.start_run("tiny", {"recipe": "tiny"})
        logger = logging.getLogger("test")
        results = {
            name: Execution(planned, StageRecord(planned, parent), force=False, logger=logger)()
            for name, planned in plan(dag("staged"), tiny()).items()
        }
        mlflow_runs.end_run(parent, "FINISHED")
        stages = {
            name: {"fingerprint": r.artifact.fingerprint, "mlflow_run_id": r.mlflow_run_id}
            for name, r in results.items()
        }
        (folder / "last_run.json").write_text(json.dumps({"run": parent, "stages": stages}))
    return folder


@pytest.fixture
def trained_var(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``trained`` as the ``var`` folder of a test."""
    monkeypatch.setenv("GILL_VAR", str(trained))
    return trained


class RecordingLog(ConsoleLog):
    """Keeps figures, documents and notes as well."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: dict[str, Any] = {}
        self.documents: dict[str, str] = {}
        self.notes: list[str] = []

    def figure(self, name: str, figure: Any) -> None:
        self.figures[name] = figure

    def document(self, name: str, text: str) -> None:
        self.documents[name] = text

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class TinyRun:
    """Runs a stage again, on the artifacts of ``trained`` and with some settings changed."""

    config: Any
    artifacts: dict[str, Any]

    def run(self, name: str, out: Path, **changes: Any) -> tuple[Any, dict[str, float]]:
        """The stage's context and metrics; what it writes lies in ``out``."""
        from flows.pipeline import dag
        from tasks.runner.context import StageContext

        context = StageContext(
            getattr(self.config, name).model_copy(update=changes),
            self.config.parts,
            self.config.runtime,
            out,
            RecordingLog(),
        )
        stages = dag("joint" if name == "joint" else "staged")
        makers = stages.makers[name]
        inputs = {parameter: self.artifacts[maker] for parameter, maker in makers.items()}
        made = stages.stages[name].run(context, **inputs)
        return context, dict(made.metrics)


@pytest.fixture(scope="session")
def tiny_run(trained: Path) -> TinyRun:
    """Stages of the tiny recipe, to be run with other settings."""
    from flows.recipes import tiny
    from tasks.runner.registry import stage_named

    stages = json.loads((trained / "last_run.json").read_text())["stages"]
    artifacts = {
        name: stage_named(name).makes(name, mark, trained / "store" / name / mark)
        for name, mark in ((n, s["fingerprint"]) for n, s in stages.items())
    }
    return TinyRun(tiny(), artifacts)
