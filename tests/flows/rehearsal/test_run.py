"""The time that a rehearsal says is left."""

import os

import pytest

from flows.overrides import ConfigError
from flows.rehearsal import run
from flows.rehearsal.run import STAND_INS, TimeLeft
from tasks.tracking import mlflow_runs


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "_USUAL", {STAND_INS: 60.0, "a": 60.0, "b": 120.0})
    return now


def test_the_pace_so_far_scales_what_is_left(clock):
    said = []
    left = TimeLeft([STAND_INS, "a", "b"], said.append)
    for name, took in ((STAND_INS, 1.0), ("a", 30.0), ("b", 1.0)):
        with left.part(name):
            clock[0] += took
    assert said == [
        "[1/3] stand-ins: about 60 s, 4 min for all that is left",
        "[2/3] a: about 60 s, 3 min for all that is left",  # stand-ins may have been there
        "[3/3] b: about 60 s, 1 min for all that is left",  # twice as fast as usual
    ]


def test_its_folder_is_apart_from_real_runs(var):
    assert run.folder_of("opt-6.7b") == var / "rehearsal" / "opt-6.7b"


def test_two_rehearsals_do_not_share_a_folder(var, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    folder = var / "own"
    folder.mkdir()
    with run._alone_in(folder):
        assert os.environ["GILL_VAR"] == str(folder)
        assert mlflow_runs.tracking_uri().startswith(f"sqlite:///{folder}")
        with pytest.raises(ConfigError, match="another rehearsal"), run._alone_in(folder):
            pass
    assert os.environ["GILL_VAR"] == str(var)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://somewhere"
    with run._alone_in(folder):
        pass
