"""Worker processes that die are replaced, and a shard that kills them is named."""

import pytest
from hostile import encoded, listed, random_image, response, settings

from data.download.downloader import fill
from data.download.image_shards import STATS
from data.download.plan import prepare
from data.download.worker_pool import WorkerError
from data.faults import SystematicFaultError

pytestmark = [pytest.mark.timeout(120), pytest.mark.process]


def broken(tmp_path, monkeypatch, code):
    """Workers have this module in place of their decoder."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "simplejpeg.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))


def test_a_decoder_that_fails_on_every_image_ends_the_download_and_says_why(
    server, tmp_path, monkeypatch
):
    """The first shard is of addresses that are gone: it is finished, and kept."""
    broken(tmp_path, monkeypatch, "def decode_jpeg_header(data): raise LookupError('no codec')\n")
    rows = [(f"{i}", server.url(f"gone{i}", response(b"", 404))) for i in range(10)]
    page = response(encoded(random_image()))
    rows += [(f"{i}", server.url(f"{i}", page)) for i in range(150)]
    source = listed(tmp_path, rows)
    given = settings(tmp_path / "out", processes=1)
    plan = prepare(source, given)
    with pytest.raises(SystematicFaultError) as found:
        fill(source, given, plan)
    for part in ("LookupError: no codec", "in a row", "http://127.0.0.1", "is finished is kept"):
        assert part in str(found.value)
    assert "train-00000" in {name.partition(".")[0] for name in plan.store.names(STATS, ".json")}


def test_a_shard_that_kills_its_workers_is_named(server, tmp_path, monkeypatch):
    """A worker that cannot import its decoder ends at once, each time."""
    broken(tmp_path, monkeypatch, "import os; os._exit(7)")
    source = listed(tmp_path, [("a", server.url("a", response(encoded())))])
    given = settings(tmp_path / "out")
    with pytest.raises(WorkerError, match=r"ended \(the last with 7\).*train-0000"):
        fill(source, given, prepare(source, given))
