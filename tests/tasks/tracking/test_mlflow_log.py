"""A stage's log in a real MLflow: what is logged is found in the run."""

import json
import logging
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from tasks.tracking import mlflow_runs
from tasks.tracking.mlflow_log import MlflowStageLog
from tasks.tracking.progress import read_progress

pytestmark = pytest.mark.slow  # a database of its own


@pytest.fixture
def log(var):
    run_id = mlflow_runs.start_run("mapper", {"stage": "mapper"})
    yield MlflowStageLog(run_id, logging.getLogger("test_mlflow_log"), var / "f00.partial")
    mlflow_runs.end_run(run_id, "FINISHED")


def fetched(log, name):
    return Path(mlflow_runs.client().download_artifacts(log.run_id, name))


def test_what_a_stage_says_is_in_its_run(log, caplog):
    log.metrics({"loss": 2.0, "l_g": 1.0}, 5)
    log.metrics({"loss": 1.5}, 10)
    history = mlflow_runs.client().get_metric_history(log.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(5, 2.0), (10, 1.5)]
    red = Image.new("RGB", (8, 6), (255, 0, 0))
    log.image("sample", red)
    assert Image.open(fetched(log, "sample.png")).convert("RGB").tobytes() == red.tobytes()
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    log.figure("curve", figure)
    assert Image.open(fetched(log, "curve.png")).format == "PNG"
    log.document("report.md", "# Größe")
    assert fetched(log, "report.md").read_text(encoding="utf-8") == "# Größe"
    with caplog.at_level(logging.INFO, "test_mlflow_log"):
        log.note("one row left out")
        log.progress(2, 2, "images")
        log.progress(1, 9, "captions")
        log.progress(2, 9, "captions")  # too soon after the last
    assert [m.partition(" (")[0] for m in caplog.messages] == [
        "one row left out", "2/2 images", "1/9 captions",
    ]  # fmt: skip
    log.table("gallery", {"prompt": ["a cat", "b"], "image": [red, red], "score": [0.5, None]})
    table = json.loads(fetched(log, "gallery.json").read_text())
    assert table["columns"] == ["prompt", "image", "score"]
    assert [row[0] for row in table["data"]] == ["a cat", "b"]
    assert {row[1]["type"] for row in table["data"]} == {"image"}
    assert fetched(log, table["data"][0][1]["filepath"]).exists()


def test_how_far_it_is_lies_beside_its_work_with_the_newest_figures_first(log, var):
    log.metrics({"loss": 2.0, "rate": 0.1}, 5)
    log.metrics({"linear_loss": 1.5}, 10)
    log.progress(10, 40, "linear_steps")
    log.metrics({"linear_loss": 1.25}, 11)
    log.progress(11, 40, "linear_steps")  # too soon after the last
    said = read_progress(var / "f00.partial")
    assert (said["done"], said["total"], said["unit"]) == (10, 40, "linear_steps")
    assert list(said["metrics"].items()) == [("linear_loss", 1.5), ("loss", 2.0), ("rate", 0.1)]
