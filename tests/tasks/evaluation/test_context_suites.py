"""Images of contexts sampled, scored and kept, by models of micro parts."""

import json

import pytest
import torch
from small_store import image_file

from data.benchmarks.contexts import Case, Cases, ContextImage
from data.shards import ShardError
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.evaluation.baselines import GeneratorAlone, GroundTruth, TrainedGill
from tasks.evaluation.context_suites import (
    FOLDER,
    ContextScorer,
    context_states,
    score_contexts,
)
from tasks.evaluation.metric_networks import MetricNetworks
from tasks.tracking.stage_log import ConsoleLog


def cases(count=3):
    made = []
    for i in range(count):
        target, other = (ContextImage(f"{i}", data=image_file(60 * i + s)) for s in (0, 20))
        contexts = {"1 caption": (f"a {i}",), "2 captions, 1 image": (other, "b", f"a {i}")}
        made.append(Case(f"case {i}", target, contexts))
    return {"vist": Cases(made, {"image: missing": 2})}


@pytest.fixture
def scored(engine, tmp_path):
    """Scores the given cases with models that are asked for by name."""
    networks = MetricNetworks(engine.vision, None, None, None)
    scorer = ContextScorer(engine, networks, tmp_path)
    config = EvaluateConfig(seed=7, contexts=ContextsConfig(seeds=2))

    def score(names, count=3):
        log = ConsoleLog()
        known = {"gill": TrainedGill(engine), "generator": GeneratorAlone(engine, log),
                 "truth": GroundTruth()}  # fmt: skip
        states = context_states(engine, cases(count), log)
        models = [known[name] for name in names]
        return score_contexts(config, cases(count), states, models, scorer, log)

    return score


def test_states_are_those_of_the_contexts_one_by_one(engine):
    found = context_states(engine, cases(), ConsoleLog())
    assert list(found) == [("vist", "1 caption"), ("vist", "2 captions, 1 image")]
    pieces = cases()["vist"].cases[2].contexts["2 captions, 1 image"]
    alone = engine.img_states([[pieces[0].open(), *pieces[1:]]])
    torch.testing.assert_close(
        found["vist", "2 captions, 1 image"][2], alone[0], atol=1e-5, rtol=1e-5
    )


def test_each_model_is_scored_on_what_it_reads(scored, tmp_path):
    rows = {(row.model, row.context): row for row in scored(["gill", "generator", "truth"])}
    assert list(rows) == [
        ("gill", "1 caption"), ("gill", "2 captions, 1 image"),
        ("generator", "1 caption"),  # it takes no image
        ("truth", "1 caption"),  # the same whatever the context
    ]  # fmt: skip
    seeds = {name: len(row.values["image_similarity"]) for name, row in rows.items()}
    assert list(seeds.values()) == [2, 2, 2, 1]
    truth = rows["truth", "1 caption"]
    torch.testing.assert_close(truth.values["image_similarity"], torch.ones(1, 3))
    assert float(truth.values["perceptual_tiny_distance"].max()) == pytest.approx(0.0, abs=1e-6)
    gill = rows["gill", "2 captions, 1 image"]
    assert gill.texts == ["b / a 0", "b / a 1", "b / a 2"]
    assert gill.keys == ["case 0", "case 1", "case 2"]
    assert len(gill.images) == 3
    assert float(gill.values["image_similarity"].max()) < 1
    described = json.loads((tmp_path / "contexts.json").read_text())
    assert described["skipped"] == {"vist": {"image: missing": 2}}
    assert len(described["rows"]) == 4


def test_what_is_kept_is_not_sampled_again(scored, engine, tmp_path, monkeypatch):
    first = scored(["gill"])
    lost = sorted((tmp_path / FOLDER).iterdir())[1]
    lost.unlink()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / FOLDER).iterdir()}
    again = scored(["gill"])
    assert lost.exists()
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    for one, other in zip(first, again, strict=True):
        for measure, values in one.values.items():
            assert torch.equal(values, other.values[measure])
    monkeypatch.setattr(engine, "sample", None)  # would fail
    scored(["gill"])


def test_what_is_kept_of_other_cases_is_refused(scored, tmp_path):
    scored(["truth"])
    with pytest.raises(ShardError, match=rf"other cases than vist has now; delete {tmp_path}"):
        scored(["truth"], count=2)
