"""Free bytes are those of the disk on which a path would lie."""

import shutil
from pathlib import Path

import pytest

from data.io.disk import free_bytes


@pytest.mark.parametrize("name", ["", "file", "new", "new/deep/file"])
def test_a_path_that_is_not_there_yet_has_a_disk_too(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_bytes(b"")
    asked = []
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or real(path))
    assert free_bytes(tmp_path / name) > 0
    assert asked == [tmp_path / "file" if name == "file" else tmp_path]
    monkeypatch.chdir(tmp_path)
    assert free_bytes(Path(name)) > 0
