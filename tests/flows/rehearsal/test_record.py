"""A rehearsal's result is kept for `gill plan`, and used for its own recipe's parts alone."""

import json
import shutil

import pytest
from micro_rehearsal import MICRO

from flows.recipes import resolve
from flows.rehearsal import record
from flows.rehearsal.estimate import Measured, estimates
from flows.rehearsal.run import folder_of
from flows.rehearsal.sizes import REHEARSALS, Splits
from flows.rehearsal.work import Scale
from tasks.runner.planning import StagePlan

RECIPE = "opt-6.7b"


@pytest.fixture
def recorded(var):
    folder = folder_of(RECIPE)
    folder.mkdir(parents=True)
    config = resolve(RECIPE, MICRO.overrides(folder))
    scale = Scale(config, MICRO.parts, MICRO.pairs)
    measured = {
        "mapper": Measured("mapper", 9.0, {"steps/s": 2.0}, 0.0, 7.0, 3e9, None),
        "index": Measured("index", 2.0, {"images/s": 8.0}, 80.0, 0.0, 1e9, 5.0),
    }
    record.write(MICRO, measured, scale, {"adapters.batch_size": 4})
    return measured, scale


def test_what_is_read_is_what_was_measured(recorded):
    measured, scale = recorded
    written = json.loads((folder_of(RECIPE) / "rehearsal.json").read_text())
    assert written["machine"]["cores"] > 0
    assert written["overrides"]["adapters.batch_size"] == 4
    config = resolve(RECIPE, {})
    rehearsal = REHEARSALS[RECIPE]
    whole = Scale(config, rehearsal.published, rehearsal.whole)
    assert record.planned(RECIPE, config) == estimates(measured, scale, whole)


def test_a_run_on_fewer_pairs_and_steps_takes_less(recorded):
    whole = record.planned(RECIPE, resolve(RECIPE, {}))
    settings = {"download.limit": 1000, "mapper.steps": 100}
    less = record.planned(RECIPE, resolve(RECIPE, settings))
    assert less["index"].amount == 1000
    assert less["mapper"].seconds < whole["mapper"].seconds / 100
    assert record.limited(Splits(5, 3, 1), 3) == Splits(3, 3, 1)


@pytest.mark.parametrize(
    "settings", [{"parts.language.name": "facebook/opt-125m"}, {"parts.vision.pretrained": "x"}]
)
def test_other_parts_were_not_rehearsed(recorded, settings):
    assert record.planned(RECIPE, resolve(RECIPE, settings)) is None


def test_no_rehearsal_tells_nothing(recorded):
    assert record.planned("tiny", resolve("tiny", {})) is None
    path = folder_of(RECIPE) / "rehearsal.json"
    of_another_version = json.loads(path.read_text())
    del of_another_version["parts"]["generator"]["denoising"]
    path.write_text(json.dumps(of_another_version))
    assert record.planned(RECIPE, resolve(RECIPE, {})) is None
    path.write_text("{")
    assert record.planned(RECIPE, resolve(RECIPE, {})) is None
    shutil.rmtree(folder_of(RECIPE))
    assert record.planned(RECIPE, resolve(RECIPE, {})) is None


def test_stages_that_were_never_made_have_its_figures_and_others_their_own(recorded):
    plans = [
        StagePlan("mapper", "a", "run", seconds=1.0, bytes=1),
        StagePlan("index", "b", "run"),
        StagePlan("decision", "c", "run"),
    ]
    own, index, unknown = record.with_rehearsed(plans, RECIPE, resolve(RECIPE, {}))
    assert own == plans[0]
    assert unknown == plans[2]
    assert index.rehearsed
    assert index.gpu == 5.0
    assert index.bytes == round(80 * 3_300_000 / 8)
