"""A tiny model that the stages trained, for the tests that use one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``var`` folder in which every stage of the tiny recipe ran once, without Prefect."""
    from flows.recipes import tiny
    from tasks import tracking
    from tasks.registry import STAGES
    from tasks.stage import Execution, fingerprint

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GILL_VAR", str(folder))
        config, results = tiny(), {}
        parent = tracking.start_run("tiny", {"recipe": "tiny"})
        for number, stage in enumerate(STAGES.values(), 1):
            inputs = {need: results[need].artifact for need in stage.needs}
            marks = {need: artifact.fingerprint for need, artifact in inputs.items()}
            own = getattr(config, stage.name)
            results[stage.name] = Execution(
                stage=stage,
                config=own,
                parts=config.parts,
                runtime=config.runtime,
                inputs=inputs,
                fingerprint=fingerprint(stage, own, config.parts, marks),
                number=number,
                parent_run=parent,
                force=False,
                logger=logging.getLogger("test"),
            )()
        tracking.end_run(parent, "FINISHED")
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
