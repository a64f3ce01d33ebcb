"""Where runs write and which ports the local servers have."""

from pathlib import Path

import pytest

from tasks import paths


def test_the_environment_names_folder_and_ports(monkeypatch):
    monkeypatch.setenv("GILL_VAR", "/somewhere")
    monkeypatch.setenv("GILL_PREFECT_PORT", "4711")
    monkeypatch.setenv("GILL_MLFLOW_PORT", "5711")
    assert paths.var_folder() == Path("/somewhere")
    assert paths.prefect_url() == "http://127.0.0.1:4711"
    assert paths.mlflow_url() == "http://127.0.0.1:5711"


@pytest.mark.parametrize("name", ["GILL_VAR", "GILL_PREFECT_PORT", "GILL_MLFLOW_PORT"])
def test_without_it_they_are_those_of_the_checkout(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    found = {
        "GILL_VAR": paths.var_folder(),
        "GILL_PREFECT_PORT": paths.prefect_port(),
        "GILL_MLFLOW_PORT": paths.mlflow_port(),
    }
    expected = {
        "GILL_VAR": paths.ROOT / "var",
        "GILL_PREFECT_PORT": 4200,
        "GILL_MLFLOW_PORT": 5000,
    }
    assert found[name] == expected[name]


def test_ports_are_those_that_the_checkout_was_given(var, monkeypatch):
    monkeypatch.delenv("GILL_PREFECT_PORT", raising=False)
    monkeypatch.delenv("GILL_MLFLOW_PORT", raising=False)
    paths.ports_file().write_text('{"prefect": 4207, "mlflow": 5007}')
    assert (paths.prefect_port(), paths.mlflow_port()) == (4207, 5007)
    monkeypatch.setenv("GILL_PREFECT_PORT", "4711")
    assert paths.prefect_port() == 4711
    paths.ports_file().write_text("{")
    assert paths.mlflow_port() == 5000


@pytest.mark.process
def test_runs_are_linked_to_the_port_that_is_set(var, monkeypatch):
    from tasks.runner.pipeline_run import run_link

    monkeypatch.setenv("GILL_MLFLOW_PORT", "5711")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run_link("abc").startswith("http://127.0.0.1:5711/#/experiments/")
