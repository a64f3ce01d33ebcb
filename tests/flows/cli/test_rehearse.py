"""The command ``gill rehearse`` from end to end, on micro sizes of the recipe ``opt-6.7b``."""

import json

import pytest
from micro_rehearsal import command

from flows.cli.app import main
from flows.pipeline import dag
from flows.recipes import resolve

STAGES = list(dag(resolve("opt-6.7b", {}).schedule).stages)
# Sizes that the recipe's own defaults have nothing to do with, so that the test is quick.
QUICK = ["--set", "mapper.hidden_dim=16", "--set", "mapper.heads=2",
         "--set", "mapper.feedforward_dim=16", "--set", "mapper.layers=1"]  # fmt: skip

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """A var folder in which the command has run once, and what it printed."""
    var = tmp_path_factory.mktemp("var")
    done = command(var, "--json", *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    return var, done


@pytest.mark.process
def test_every_stage_is_run_measured_and_extrapolated(rehearsed):
    _, done = rehearsed
    found = json.loads(done.stdout)
    assert list(found["stages"]) == STAGES
    for name, stage in found["stages"].items():
        took, whole = stage["rehearsed"], stage["whole"]
        assert took["seconds"] > 0, name
        assert took["host"] > 1e8, name
        assert whole["seconds"] > 0, name
        assert whole["bytes"] >= took["others"], name
        if name not in ("download", "decision"):
            assert whole["seconds"] > took["seconds"], name
    rates = {name: set(stage["rehearsed"]["rates"]) for name, stage in found["stages"].items()}
    assert rates["clip_features"] == {"images/s", "hashed images/s"}
    assert rates["text_targets"] == {"captions/s"}
    assert rates["adapters"] >= {"steps/s", "[IMG] states/s"}
    assert rates["mapper"] >= {"steps/s", "linear_steps/s"}
    assert rates["evaluate"] >= {"captions/s", "images/s", "prompts scored/s"}
    for number, name in enumerate(STAGES, 3):
        assert f"[{number}/{len(STAGES) + 2}] {name}: about " in done.stderr


@pytest.mark.process
def test_it_lies_apart_is_used_again_and_can_be_removed(rehearsed):
    var, _ = rehearsed
    assert [path.name for path in var.iterdir()] == ["rehearsal"]
    again = command(var, *QUICK)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "making a stand-in" not in again.stdout
    assert "Beginning flow run" not in again.stderr
    assert "adapters" in again.stdout
    assert "2 of 3 layers of the language model" in again.stdout
    assert command(var, "--remove").returncode == 0
    assert list((var / "rehearsal").iterdir()) == []


@pytest.mark.parametrize("recipe", ["tiny", "embedded"])
def test_small_recipes_are_refused_by_name(recipe, var, capsys):
    assert main(["rehearse", "--recipe", recipe]) == 2
    assert f"gill run --recipe {recipe}" in capsys.readouterr().err
    assert list(var.iterdir()) == []


def test_settings_are_checked_before_anything_is_made(var, capsys):
    assert main(["rehearse", "--set", "adapters.stps=2"]) == 2
    assert "did you mean 'adapters.steps'" in capsys.readouterr().err
    assert list(var.iterdir()) == []
