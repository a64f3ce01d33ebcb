"""Files are whole or absent, here and on S3 (a local server of moto)."""

import pytest
from hostile import encoded, listed, random_image, response, settings

from data.download.atomic_store import Store
from data.download.downloader import fill
from data.download.image_shards import failed_rows
from data.download.plan import prepare
from data.io.atomic import WriteError

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def bucket(monkeypatch):
    """The address of a folder in a bucket of a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(f"images-{port}")
    try:
        yield f"s3://images-{port}/cc3m"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def fails(handle):
    handle.write(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["here", pytest.param("s3", marks=pytest.mark.process)])
def test_a_write_that_fails_leaves_what_was_there(place, tmp_path, request):
    address = request.getfixturevalue("bucket") if place == "s3" else str(tmp_path / "store")
    store = Store(address)
    store.write_json("a/b.json", {"x": 1})
    with pytest.raises(WriteError, match=r"a/b\.json.*No space left.*Make room"):
        store.write("a/b.json", fails)
    with pytest.raises(WriteError):
        store.write("a/c.json", fails)
    assert store.read_json("a/b.json") == {"x": 1}
    assert store.names("a", ".json") == ["b.json"]
    assert store.names("none", "") == []
    store.write_json("a/b.json", {"x": 2})
    assert store.read_json("a/b.json") == {"x": 2}
    store.remove("a/b.json")
    assert not store.exists("a/b.json")


def test_shards_go_to_s3_and_are_resumed_there(bucket, server, tmp_path):
    pages = [response(encoded(random_image(seed=i))) for i in range(20)]
    source = listed(tmp_path, [(f"{i}", server.url(f"{i}", p)) for i, p in enumerate(pages)])
    server.pages["/4"] = response(b"", 503)
    given = settings(bucket, processes=1)
    fill(source, given, prepare(source, given))
    store = Store(bucket)
    assert store.names("images", ".parquet") == ["train-00000.parquet", "train-00001.parquet"]
    assert [r.key for r, *_ in failed_rows(store, "train-00000")] == ["train-000000004"]
    asked = len(server.asked)
    store.remove("stats/train-00001.json")
    fill(source, given, prepare(source, given))
    assert len(server.asked) == asked + 10
    server.pages["/4"] = pages[4]
    given = settings(bucket, processes=1, retries=("transient",))
    fill(source, given, prepare(source, given))
    assert failed_rows(store, "train-00000") == []
