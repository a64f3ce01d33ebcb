"""The sweeps on the tiny recipe."""

import json
import math

import pytest

from flows.ablation import ablation
from flows.overrides import ConfigError
from tasks.tracking import mlflow_runs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kinds": ("gill", "conv")}, "mapper.kind is 'conv'; it must be 'gill'"),
        ({"tokens": (1, 0)}, "adapters.num_img_tokens is 0; it must be"),
        ({"seeds": 0}, "0 seeds of 8 points"),
        ({"kinds": (), "tokens": ()}, "of 0 points"),
        ({"overrides": {"mapper.steps": -1}}, "mapper.steps is -1"),
    ],
)
def test_a_wrong_point_is_refused_before_the_first_run(var, wrong, message):
    with pytest.raises(ConfigError, match=message):
        ablation.fn("tiny", **wrong)
    assert not any(var.iterdir())


@pytest.mark.timeout(600)
def test_the_sweeps_reuse_what_does_not_change(var, prefect_server):
    cheap = {"mapper.steps": 4, "decision.steps": 5, "evaluate.images": 6}
    ablation("tiny", kinds=("gill", "linear"), tokens=(2,), seeds=2, overrides=cheap)
    made = {
        stage.name: len([p for p in stage.iterdir() if p.is_dir()])
        for stage in (var / "store").iterdir()
    }
    # Two kinds and two seeds; the sweep over r meets the first kind's runs again.
    assert made == {
        "download": 1, "clip_features": 1, "text_targets": 1, "adapters": 1, "index": 1,
        "mapper": 4, "decision": 4, "evaluate": 4,
    }  # fmt: skip
    points = json.loads((var / "ablation" / "points.json").read_text())
    assert [(p["sweep"], p["value"]) for p in points] == [
        ("mapper.kind", "gill"), ("mapper.kind", "linear"), ("adapters.num_img_tokens", 2),
    ]  # fmt: skip
    assert points[0]["runs"] == points[2]["runs"] != points[1]["runs"]
    assert points[0]["runs"][0] != points[0]["runs"][1]
    client = mlflow_runs.client()
    (run,) = client.search_runs([mlflow_runs.experiment_id()], "tags.kind = 'ablation'")
    assert run.info.status == "FINISHED"
    names = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert names == {"table.md", "mapper_kind.png", "adapters_num_img_tokens.png"}
    assert math.isfinite(run.data.metrics["kind_linear_paired"])
    assert "kind_gill_paired" not in run.data.metrics
    mean = sum(r["l_g"] for r in points[1]["runs"]) / 2
    assert run.data.metrics["kind_linear_l_g"] == pytest.approx(mean)


def test_wrong_keys_are_refused_before_anything_runs(var, prefect_server):
    from flows.ablation import ablation
    from flows.config import ConfigError

    with pytest.raises(ConfigError, match=r"mapper\.kinds"):
        ablation("tiny", overrides={"mapper.kinds": "x"})
    assert not (var / "store").exists()
