"""Folders and the key that are for their user alone."""

import stat

import pytest

from flows.local.environment import auth_string, private_folder


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


def test_there_is_no_key_where_it_is_turned_off(var, monkeypatch):
    monkeypatch.setenv("GILL_PREFECT_AUTH", "off")
    assert auth_string() is None
    assert not (var / "prefect").exists()
