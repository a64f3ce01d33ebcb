"""Worker processes that die are replaced, and a shard that kills them is named."""

import pytest
from hostile import encoded, listed, response, settings

from data.download.downloader import fill
from data.download.plan import prepare
from data.download.worker_pool import WorkerError

pytestmark = [pytest.mark.timeout(120), pytest.mark.process]


def test_a_shard_that_kills_its_workers_is_named(server, tmp_path, monkeypatch):
    """A worker that cannot import its decoder ends at once, each time."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "simplejpeg.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    source = listed(tmp_path, [("a", server.url("a", response(encoded())))])
    given = settings(tmp_path / "out")
    with pytest.raises(WorkerError, match=r"ended \(the last with 7\).*train-0000"):
        fill(source, given, prepare(source, given))
