"""What is derived from the stages' own files is current, and a new stage needs nothing else."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from flows import deployments
from tasks.paths import ROOT
from tasks.runner.names import stage_names
from tasks.runner.registry import stage_named


def test_deployments_are_current():
    assert deployments.DEPLOYMENTS.read_text() == deployments.deployments(), (
        "run `python -m flows.deployments` and commit prefect.yaml"
    )
    made = yaml.safe_load(deployments.deployments())["deployments"]
    assert {d["name"] for d in made} == {"full-pipeline", "ablation", *stage_names()}
    joint = next(d for d in made if d["name"] == "joint")
    assert joint["parameters"]["overrides"] == {"schedule": "joint"}
    assert joint["description"] == stage_named("joint").declared.description


def test_the_table_of_stages_is_current():
    assert deployments.TABLE.read_text() == deployments.table(), (
        "run `python -m flows.deployments` and commit docs/reference/stages.md"
    )


STAGE = '''
"""The mean width of the images."""

from __future__ import annotations

from data.artifacts import Artifact, ImageShards
from data.io.atomic import write_json
from tasks.config.base import Config
from tasks.runner.context import StageContext
from tasks.runner.stage import StageDeclaration

STAGE = StageDeclaration(version=7, description="How wide images are", headlines=("width",))


class WidthsConfig(Config):
    """What is measured."""

    split: str = "test"


class Widths(Artifact):
    """The mean width."""


def run(context: StageContext[WidthsConfig], images: ImageShards) -> Widths:
    """Write ``widths.json``."""
    widths = []
    for name in images.names(context.config.split):
        widths += images.read(name, ["width"]).column("width").to_pylist()
    metrics = {"width": sum(widths) / len(widths)}
    write_json(context.out / "widths.json", metrics)
    return Widths.made(context.out, metrics)
'''
PROGRAM = """
import json, logging
from flows.deployments import deployments, table
from flows.local.summary import table_of
from flows.pipeline import dag
from flows.recipes import tiny
from tasks.runner.dag import plan
from tasks.runner.execution import Execution
from tasks.runner.record import StageRecord
from tasks.runner.versions import described

planned = plan(dag("staged"), tiny(), {"download", "widths"})
logger = logging.getLogger("test")
results = {n: Execution(p, StageRecord(p, None), False, logger)() for n, p in planned.items()}
stages = {n: {"status": r.status, "seconds": 0, "metrics": r.metrics} for n, r in results.items()}
print(json.dumps({
    "metrics": results["widths"].metrics,
    "manifest": vars(results["widths"].artifact.manifest()),
    "deployment": "name: widths" in deployments(),
    "table": "`widths` | How wide images are | ImageShards | Widths" in table(),
    "headline": "width 128" in table_of({"stages": stages}),
    "code": sorted(described("widths")["code"]),
}))
"""


@pytest.mark.process
@pytest.mark.timeout(900)
def test_a_new_stage_is_written_in_its_file_and_in_the_dag(tmp_path):
    """In a copy of the project; everything else about it is derived."""
    for package in ("flows", "tasks", "gill", "data"):
        ignored = shutil.ignore_patterns("__pycache__", *(["embedded"] * (package == "data")))
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    (tmp_path / "data" / "embedded").symlink_to(ROOT / "data" / "embedded")
    (tmp_path / "tasks" / "stages" / "widths.py").write_text(STAGE.lstrip())
    pipeline = tmp_path / "flows" / "pipeline.py"
    text = pipeline.read_text()
    wired = text.replace("    text_targets,\n", "    text_targets,\n    widths,\n").replace(
        "    images = run(download.run)\n",
        "    images = run(download.run)\n    run(widths.run, images)\n",
    )
    assert wired.count("widths") == 2
    pipeline.write_text(wired)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "GILL_VAR": str(tmp_path / "var")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["metrics"] == {"width": 128.0}
    manifest = told["manifest"]
    assert (manifest["version"], manifest["config"]) == (7, {"split": "test"})
    assert manifest["inputs"]["images"].startswith("download/")
    assert told["deployment"]
    assert told["table"]
    assert told["headline"]
    assert {"tasks.stages.widths", "data.artifacts"} <= set(told["code"])
