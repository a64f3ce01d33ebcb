"""The downloader as a whole: every row accounted for, also when processes die."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from hostile import encoded, limits, listed, random_image, response, settings
from PIL import Image

from data.download import worker as worker_module
from data.download.atomic_store import Store
from data.download.downloader import fill
from data.download.http_client import HttpClient
from data.download.plan import prepare
from data.download.settings import ImageRules
from data.io.atomic import WriteError
from data.sources.captioned_urls import CaptionedUrls

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.timeout(120), pytest.mark.process]


def run(source, given):
    """Fetch all that is missing; returns the statistics of the shards that were made now."""
    made = []
    fill(source, given, prepare(source, given), done=made.append)
    return made


def table(store, kind):
    paths = sorted((Path(store) / kind).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def good(store):
    return {row["key"]: row for row in table(store, "images")}


def bad(store):
    return {row["key"]: row["reason"] for row in table(store, "failures")}


@pytest.fixture
def mix(server, tmp_path):
    """A list of 60 addresses: 48 images, 6 that are gone, 6 that are pages."""
    rows = []
    for i in range(60):
        page = response(encoded(random_image(seed=i)))
        if i % 10 == 3:
            page = response(b"", 404)
        if i % 10 == 7:
            page = response(b"<html>", headers={"Content-Type": "image/jpeg"})
        rows.append((f"caption {i}", server.url(f"{i}.jpg", page)))
    return listed(tmp_path, rows)


def test_every_row_is_a_image_or_a_counted_failure(mix, tmp_path):
    made = run(mix, settings(tmp_path / "out"))
    assert {s["name"] for s in made} == {f"train-{i:05d}" for i in range(6)}
    assert Counter(bad(tmp_path / "out").values()) == {"http_404": 6, "not_image:html": 6}
    rows = good(tmp_path / "out")
    assert len(rows) == 48
    assert [r["key"] for r in table(tmp_path / "out", "images")] == sorted(rows)
    row = rows["train-000000005"]
    assert (row["caption"], row["width"], row["original_width"]) == ("caption 5", 48, 96)
    assert row["origin"].endswith("/5.jpg")
    for stats in made:
        assert stats["rows"] == stats["good"] + sum(stats["failures"].values()) == 10
    assert not list(tmp_path.rglob("*.part"))


def test_bytes_are_sniffed_and_captions_kept_word_for_word(server, tmp_path):
    url = server.url("a", response(encoded(), headers={"Content-Type": "text/html"}))
    captions = ['say "hi', "", "tab\there", " spaces ", "a\rb", "line\u2028sep", '"', "é\x85è"]
    source = listed(tmp_path, [(c, f"{url}?{i}") for i, c in enumerate(captions)])
    for i in range(len(captions)):
        server.pages[f"/a?{i}"] = server.pages["/a"]
    run(source, settings(tmp_path / "out"))
    assert [r["caption"] for r in table(tmp_path / "out", "images")] == captions


def test_rows_that_cannot_be_read_are_counted_with_their_line(server, tmp_path):
    url = server.url("a", response(encoded()))
    path = tmp_path / "list.tsv"
    path.write_bytes(b"no tab\n\xff\xfe\t" + url.encode() + b"\n" + b"x" * (2 << 20) + b"\nfine\t"
                     + url.encode())  # fmt: skip
    run(CaptionedUrls({"train": str(path)}), settings(tmp_path / "out"))
    found = {r["reason"]: r for r in table(tmp_path / "out", "failures")}
    assert set(found) == {"no_tab", "not_utf8", "line_too_long"}
    assert found["not_utf8"]["detail"].endswith("list.tsv line 2")
    assert [r["caption"] for r in table(tmp_path / "out", "images")] == ["fine"]


def headed(status, *lines, body=b""):
    """An answer with header lines as bytes."""
    lines = (b"HTTP/1.1 %d X" % status, b"Content-Length: %d" % len(body), *lines)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_one_hosts_malformed_answers_cost_no_other_row(server, tmp_path):
    robots = (
        b"User-agent: *\nDisallow: http://[your-domain]/\nCrawl-delay: \xc2\xb2\nDisallow: /no\n"
    )
    server.url("robots.txt", headed(200, body=robots))
    pages = {
        "fine": headed(200, body=encoded()),
        "no": headed(200, body=encoded(random_image(seed=1))),
        "target": headed(302, b"Location: http://[\xe9/a"),
        "coding": headed(200, b"Content-Encoding: \xe9", body=encoded()),
        "later": headed(429, b"Retry-After: Fri, 01 Jan 2100 00:00:00 -9999999999999"),
        "after": headed(503, b"Retry-After: \xc2\xb2"),
    }
    # A host each: one that says Retry-After is left alone for a while.
    rows = [(k, server.url(k, p, f"127.0.0.{i}")) for i, (k, p) in enumerate(pages.items(), 1)]
    source = listed(tmp_path, rows)
    (made,) = run(source, settings(tmp_path / "out", web=limits(robots=True)))
    assert made["rows"] == 6
    assert [r["caption"] for r in table(tmp_path / "out", "images")] == ["fine"]
    lost = {r["caption"]: r["reason"] for r in table(tmp_path / "out", "failures")}
    assert lost == {"no": "opt_out", "target": "bad_url", "coding": "content_encoding",
                    "later": "http_429", "after": "http_503"}  # fmt: skip


@pytest.mark.parametrize("where", ["decoder", "network"])
def test_an_unexpected_exception_is_counted_for_its_address(
    server, tmp_path, monkeypatch, caplog, where
):
    def odd_process(body, rules):
        if body == b"odd":
            raise ZeroDivisionError("in the decoder")
        return process(body, rules)

    async def odd_follow(self, url):
        if url.path.startswith("/odd"):
            raise ZeroDivisionError("in the network")
        return await follow(self, url)

    process, follow = worker_module.process, HttpClient._follow
    if where == "decoder":
        monkeypatch.setattr(worker_module, "process", odd_process)
    else:
        monkeypatch.setattr(HttpClient, "_follow", odd_follow)
    urls = [server.url(f"{i}", response(encoded(random_image(seed=i)))) for i in range(4)]
    urls += [server.url(f"odd{i}", response(b"odd")) for i in range(2)]
    job = {"name": "train-00000", "passes": 0}
    job["rows"] = [
        [f"k{i}", "caption", url, "source", ""] for i, url in enumerate([*urls, urls[4]])
    ]

    async def filled():
        async with HttpClient(limits(), 4) as web:
            store = Store(str(tmp_path / "out"))
            rules = ImageRules(resize="crop", size=48)
            return await worker_module.Worker(store, web, rules).shard(job)

    stats = asyncio.run(filled())
    assert (stats["good"], stats["failures"]) == (4, {"unexpected:ZeroDivisionError": 3})
    details = {r["detail"] for r in table(tmp_path / "out", "failures")}
    assert details == {f"in the {where}"}
    (logged,) = caplog.records  # a sample, not each of them
    assert "unexpected:ZeroDivisionError at http://127.0.0.1" in logged.getMessage()
    assert logged.exc_info[0] is ZeroDivisionError


def test_an_address_is_fetched_once_for_all_its_rows(server, tmp_path):
    url = server.url("a", response(encoded()))
    rows = [
        (f"{i}", server.url(f"{i}", response(encoded(random_image(seed=i))))) for i in range(25)
    ]
    rows[3] = ("one", url)
    rows[4] = ("two", url + "#part")
    rows[24] = ("three", url.replace("http:", "HTTP:"))
    run(listed(tmp_path, rows), settings(tmp_path / "out"))
    assert server.asked.count("/a") == 1
    first = pq.read_table(tmp_path / "out/images/train-00000.parquet").to_pylist()
    same = [r for r in first if r["caption"] in {"one", "two", "three"}]
    assert len(same) == 3
    assert len({r["sha256"] for r in same}) == 1
    assert len(good(tmp_path / "out")) == 25


def test_finished_shards_are_never_done_again(mix, server, tmp_path):
    given = settings(tmp_path / "out")
    run(mix, given)
    asked = len(server.asked)
    assert run(mix, given) == []
    (tmp_path / "out/stats/train-00002.json").unlink()
    assert [s["name"] for s in run(mix, given)] == ["train-00002"]
    assert len(server.asked) == asked + 10


def test_retries_are_for_transient_failures_or_for_all(server, tmp_path):
    busy = response(b"", 503)
    rows = [
        (f"{i}", server.url(f"{i}", response(encoded(random_image(seed=i))))) for i in range(10)
    ]
    for i in (2, 5):
        server.pages[f"/{i}"] = busy
    server.pages["/7"] = response(b"", 404)
    source = listed(tmp_path, rows)
    run(source, settings(tmp_path / "out"))
    assert Counter(bad(tmp_path / "out").values()) == {"http_503": 2, "http_404": 1}
    before = good(tmp_path / "out")
    server.pages["/2"] = response(encoded(random_image(seed=2)))
    server.pages["/7"] = response(encoded(random_image(seed=7)))
    server.asked.clear()
    (stats,) = run(source, settings(tmp_path / "out", retries=("transient",)))
    assert sorted(server.asked) == ["/2", "/5"]
    assert (stats["good"], stats["failures"]) == (8, {"http_404": 1, "http_503": 1})
    run(source, settings(tmp_path / "out", retries=("transient", "all")))
    assert bad(tmp_path / "out") == {"train-000000005": "http_503"}
    rows = good(tmp_path / "out")
    assert len(rows) == 9
    assert all(rows[key] == row for key, row in before.items())
    assert list(rows) == sorted(rows)


def test_retry_after_is_waited_for(server, tmp_path):
    page = response(b"", 429, {"Retry-After": "1"})
    source = listed(tmp_path, [("a", server.url("a", page))])
    run(source, settings(tmp_path / "out"))
    told = time.time()
    server.pages["/a"] = response(encoded())
    run(source, settings(tmp_path / "out", retries=("transient",)))
    assert len(good(tmp_path / "out")) == 1
    assert (
        json.loads((tmp_path / "out/stats/train-00000.json").read_text())["finished"] > told + 0.5
    )


def test_a_retry_that_was_killed_between_its_files_loses_and_repeats_nothing(mix, server, tmp_path):
    run(mix, settings(tmp_path / "out"))
    store = tmp_path / "out"
    failures = (store / "failures/train-00000.parquet").read_bytes()
    stats = (store / "stats/train-00000.json").read_bytes()
    server.pages["/3.jpg"] = response(encoded(random_image(seed=3)))
    run(mix, settings(store, retries=("all",)))
    # As if the process had died once the images were in place and the failures not yet.
    (store / "failures/train-00000.parquet").write_bytes(failures)
    (store / "stats/train-00000.json").write_bytes(stats)
    run(mix, settings(store, retries=("all",)))
    assert len(good(store)) == len(table(store, "images")) == 49
    assert len(bad(store)) == 11


SLOW_RUN = """
import json, sys
from data.download.downloader import fill
from data.download.plan import prepare
from data.download.settings import FetchSettings
from data.download.settings import ImageRules
from data.sources.captioned_urls import CaptionedUrls
from data.download.settings import HttpLimits
source = CaptionedUrls({"train": sys.argv[1]})
web = HttpLimits(contact="test@example.org", deadline=20.0, robots=False, per_host=4,
                allowed_networks=("127.0.0.0/24",))
given = FetchSettings(store=sys.argv[2], web=web, images=ImageRules(resize="crop", size=48),
                      shard_size=10, processes=2)
fill(source, given, prepare(source, given), done=lambda s: print(s["name"], flush=True))
"""


def begun(tmp_path, store):
    """The same run in a process of its own, once it has finished a shard; and its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(tmp_path / "list.tsv"), str(store)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().startswith("train-")
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.fixture
def slow_mix(mix, server):
    """The same list from a server that takes its time."""
    import asyncio

    for path, page in list(server.pages.items()):

        async def later(writer, page=page):
            await asyncio.sleep(0.15)
            writer.write(page)
            await writer.drain()

        server.pages[path] = later
    return mix


def same_as_undisturbed(mix, tmp_path, store):
    given = settings(store, web=limits(per_host=4))
    run(mix, given)
    run(mix, settings(tmp_path / "undisturbed", web=limits(per_host=4)))
    for kind in ("images", "failures"):
        assert table(store, kind) == table(tmp_path / "undisturbed", kind)
    assert not list(Path(store).rglob("*.part"))


@pytest.mark.parametrize("how", ["worker", "main", "both", "terminated"])
def test_killed_processes_cost_the_open_shards_and_nothing_else(slow_mix, server, tmp_path, how):
    store = tmp_path / "out"
    process, workers = begun(tmp_path, store)
    finished = len(list((store / "stats").glob("*.json")))
    if how in {"worker", "both"}:
        workers[0].kill()
    if how in {"main", "both"}:
        process.kill()
    if how == "terminated":
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.wait(30)
    expected = {"worker": 0, "terminated": -signal.SIGTERM}.get(how, -signal.SIGKILL)
    assert process.returncode == expected
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive
    if how != "worker":
        assert time.monotonic() - began < 5
    process.stdout.close()
    assert finished >= 1
    asked = len(server.asked)
    same_as_undisturbed(slow_mix, tmp_path, store)
    redone = len(server.asked) - asked - 60
    assert redone <= 60 - finished * 10


def test_a_full_disk_is_said_and_leaves_no_partial_file(mix, tmp_path):
    """A limit on the size of files fails in the kernel as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    source, given = mix, settings(tmp_path / "out", processes=1)
    plan = prepare(source, given)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*Make room"):
            fill(source, given, plan)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files = {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {"identity.json", "train.parquet"}
    run(source, given)
    assert len(good(tmp_path / "out")) == 48


def test_memory_does_not_grow_with_the_number_of_rows(server, tmp_path):
    """Ten times the rows: the worker's peak stays within 25 MB."""
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    data = response(encoded(Image.fromarray(noise), quality=95))
    peaks = {}
    for count in (100, 1000):
        rows = [(f"{i}", server.url(f"{i}", data)) for i in range(count)]
        source = listed(tmp_path, rows, f"{count}.tsv")
        given = settings(tmp_path / f"{count}", processes=1, shard_size=500,
                         images=ImageRules(resize="original"))  # fmt: skip
        peaks[count] = max(s["peak_bytes"] for s in run(source, given))
    assert peaks[1000] - peaks[100] < 25e6
    assert os.path.getsize(tmp_path / "1000/images/train-00000.parquet") > 10e6
