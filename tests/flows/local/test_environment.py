"""Folders and the key that are for their user alone."""

import os
import stat

import pytest

from flows.local.environment import auth_string, private_files, private_folder, server_settings


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, 0o755, 0o770, 0o700])
def test_a_folder_is_closed_to_others_whatever_it_was(tmp_path, before):
    path = tmp_path / "var"
    if before is not None:
        path.mkdir()
        path.chmod(before)
    assert private_folder(path) == path
    assert mode(path) == 0o700


def test_the_key_is_made_once_and_is_for_its_user_alone(var):
    key = auth_string()
    assert key is not None
    assert auth_string() == key
    assert mode(var / "prefect" / "auth") == 0o600


def test_files_are_private_meanwhile_and_not_after(tmp_path):
    before = os.umask(0o022)
    try:
        with private_files():
            (tmp_path / "inside").touch()
        (tmp_path / "after").touch()
    finally:
        os.umask(before)
    assert (mode(tmp_path / "inside"), mode(tmp_path / "after")) == (0o600, 0o644)


def test_a_watcher_is_sent_the_logs_which_say_why_a_run_failed(var):
    found = server_settings(4200)
    assert found["PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED"] == "true"
    assert found["PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED"] == "true"


def test_there_is_no_key_where_it_is_turned_off(var, monkeypatch):
    monkeypatch.setenv("GILL_PREFECT_AUTH", "off")
    assert auth_string() is None
    assert not (var / "prefect").exists()
