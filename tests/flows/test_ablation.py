"""The sweeps on the tiny recipe, and how they are summed up."""

import json
import math

import pytest

from tasks.evaluation.sweep import Point, as_table, headline, plots
from tasks.tracking import mlflow_runs


def point(value, *runs, similarities=(), own=False):
    metrics = [{"l_g": a, "similarity": b} for a, b in runs]
    by_key = {str(i): s for i, s in enumerate(similarities)}
    return Point("mapper.kind", value, metrics, ["x"], by_key, own)


def test_tables_and_error_bars_by_hand():
    points = [
        point("gill", (1.0, 0.5), (3.0, 0.5), similarities=(0.4, 0.6), own=True),
        point("linear", (2.0, 0.1), similarities=(0.1, 0.1)),  # -0.3 and -0.5
    ]
    assert as_table(points).splitlines() == [
        "| sweep | value | seeds | l_g | similarity | similarity less the recipe's |",
        "|---|---|---|---|---|---|",
        "| mapper.kind | gill | 2 | 2.0000 ± 1.4142 | 0.5000 ± 0.0000 | - |",
        "| mapper.kind | linear | 1 | 2.0000 ± 0.0000 | 0.1000 ± 0.0000 | -0.4000 ± 0.1000 |",
    ]
    panels = plots(points)["mapper_kind"].axes
    assert [p.get_title() for p in panels][2:] == ["similarity less the recipe's"]
    axes = panels[0]
    assert axes.get_title() == "l g"
    line, _, (bars,) = axes.containers[0]
    assert line.get_ydata().tolist() == [2.0, 2.0]
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([2 - 2**0.5, 2 + 2**0.5])


def test_the_headline_is_about_the_mapper():
    found = headline(
        {
            "mapper": {"validation_l_g": 5.0, "loss": 1.0},
            "adapters": {"validation_t2i_r10": 0.4},
            "evaluate": {
                "gill_similarity": 0.1,
                "gill_similarity_se": 0.2,
                "gill_fid": 9.0,
                "gill_minus_x_similarity": 1.0,
                "own_text_encoder_similarity": 0.3,
            },
        }
    )
    assert found == {"l_g": 5.0, "t2i_r10": 0.4, "similarity": 0.1, "fid": 9.0}


@pytest.mark.timeout(600)
def test_the_sweeps_reuse_what_does_not_change(var, prefect_server):
    from flows.ablation import ablation

    ablation("tiny", kinds=("gill", "linear"), tokens=(2,), seeds=2)
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
