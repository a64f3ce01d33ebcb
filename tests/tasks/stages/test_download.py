"""The download stage: from lists and tar files to shards that can be trusted, with an account."""

import io
import json
import logging
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow import pipeline
from hostile import encoded, random_image, response

from data import schemas
from data.artifacts import ImageShards
from data.faults import SystematicFaultError
from data.shards import read_table, shard_names
from data.sources.embedded_pack import EmbeddedPack
from flows.recipes import tiny
from tasks.config.download import DownloadConfig
from tasks.download import converting
from tasks.download.sources import source_of
from tasks.runner.context import StageContext
from tasks.runner.dag import Dag, plan
from tasks.runner.execution import Execution
from tasks.runner.record import StageRecord
from tasks.runner.stage import NothingKeptError
from tasks.stages.download import run
from tasks.tracking.stage_log import ConsoleLog

IMAGES = ImageShards.FOLDER
WEB = {
    "source": "cc3m", "contact": "test@example.org", "robots": False, "shard_size": 10,
    "resize": "crop", "size": 48, "per_host": 64, "processes": 1,
    "allowed_networks": ("127.0.0.0/24",),
}  # fmt: skip


def made(out, **config):
    """Run the stage without Prefect and MLflow; returns its metrics and what it logged."""
    out.mkdir(exist_ok=True)
    recipe, log = tiny(), ConsoleLog()
    context = StageContext(DownloadConfig(**config), recipe.parts, recipe.runtime, out, log)
    return dict(run(context).metrics), log


def rows(out, kind=IMAGES):
    return [r for n in shard_names(out / kind) for r in read_table(out / kind / n).to_pylist()]


def listed(tmp_path, pairs):
    path = tmp_path / "list.tsv"
    path.write_text("".join(f"{c}\t{u}\n" for c, u in pairs))
    return {"train": str(path)}


def test_the_embedded_pack_is_kept_byte_for_byte(tmp_path):
    metrics, log = made(tmp_path / "out", limit=20, shard_size=8)
    assert metrics["train_pairs"] == metrics["test_pairs"] == 20
    assert metrics["dropped"] == 0
    pairs = list(EmbeddedPack(limit=20).pairs("train"))
    train = [
        r
        for n in shard_names(tmp_path / "out" / IMAGES, "train")
        for r in read_table(tmp_path / "out" / IMAGES / n, kind="images").to_pylist()
    ]
    assert [(r["key"], r["caption"], r["image"]) for r in train] == [
        (p.key, p.caption, p.image) for p in pairs
    ]
    assert len(log.tables["sample"]["image"]) == 24


def test_what_nobody_expected_of_a_local_image_is_counted_up_to_a_bound(tmp_path, monkeypatch):
    process, odd = converting.process, list(EmbeddedPack(limit=4).pairs("train"))[3].image

    def fails(when):
        def one(data, rules):
            if when(data):
                raise LookupError("no codec")
            return process(data, rules)

        monkeypatch.setattr(converting, "process", one)

    fails(lambda data: data == odd)
    metrics, log = made(tmp_path / "out", limit=20, shard_size=8)
    assert (metrics["train_pairs"], metrics["failed/unexpected/LookupError"]) == (19, 1)
    assert log.tables["failure_samples"]["reason"] == ["unexpected:LookupError"]
    assert log.tables["failure_samples"]["detail"] == ["no codec"]
    fails(lambda data: True)
    with pytest.raises(SystematicFaultError, match=r"100 in a row.*LookupError: no codec"):
        made(tmp_path / "other", limit=150, shard_size=8)
    finished = list((tmp_path / "other" / "stats").glob("*.json"))
    assert len(finished) == 12, "what is finished is kept"


def test_a_list_of_addresses_with_its_account(server, tmp_path):
    pairs = [
        (f"{i}", server.url(f"{i}", response(encoded(random_image(seed=i))))) for i in range(20)
    ]
    server.pages["/3"] = response(b"", 404)
    server.pages["/4"] = response(b"<html>")
    config = {**WEB, "paths": listed(tmp_path, pairs)}
    metrics, log = made(tmp_path / "out", **config)
    assert (metrics["train_pairs"], metrics["dropped"]) == (18, 2)
    assert (metrics["failed/http_404"], metrics["failed/not_image/html"]) == (1, 1)
    assert log.history[-1][1]["rows_done"] == 20
    assert log.history[-1][1]["images_per_second"] > 0
    hosts = log.tables["failures_by_host"]
    assert (set(hosts["host"]), sum(hosts["count"])) == ({"127.0.0.1"}, 2)
    assert set(log.tables["failure_samples"]["reason"]) == {"http_404", "not_image:html"}
    summary = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert summary["rows"] == {"train": 18}
    assert not (tmp_path / "out" / IMAGES / "x.part").exists()


def duplicated(server, tmp_path):
    """30 rows: 12 addresses with one image, 2 with another, one address twice."""
    pages = [response(encoded(random_image(seed=i))) for i in range(30)]
    pairs = [(f"{i}", server.url(f"{i}", page)) for i, page in enumerate(pages)]
    for i in range(12):
        server.pages[f"/{i * 2}"] = pages[0]
    server.pages["/27"] = pages[25]
    pairs[29] = ("again", pairs[28][1])
    return {**WEB, "paths": listed(tmp_path, pairs)}


def test_duplicates_are_flagged_and_placeholders_reported(server, tmp_path):
    config = duplicated(server, tmp_path)
    metrics, _ = made(tmp_path / "out", **config)
    assert metrics["train_pairs"] == 30
    found = pq.read_table(tmp_path / "out" / "duplicates.parquet").to_pylist()
    kinds = {kind: {r["key"][-2:] for r in found if r["kind"] == kind} for kind in
             ("url", "content", "placeholder")}  # fmt: skip
    assert kinds["url"] == {"29"}
    assert kinds["content"] == {"27"}
    assert kinds["placeholder"] == {f"{i * 2:02d}" for i in range(12)}
    assert metrics["duplicates/placeholder"] == 12


def test_duplicates_and_placeholders_are_dropped_by_recipe(server, tmp_path):
    config = {**duplicated(server, tmp_path), "duplicates": "drop", "placeholders": "drop"}
    metrics, _ = made(tmp_path / "out", **config)
    assert metrics["train_pairs"] == 30 - 12 - 2
    assert (metrics["failed/placeholder"], metrics["failed/duplicate"]) == (12, 2)
    assert len(rows(tmp_path / "out", "failures")) == 14
    again, _ = made(tmp_path / "out", **config)
    assert again == metrics


def test_a_kill_while_dropping_loses_no_row(server, tmp_path):
    config = {**duplicated(server, tmp_path), "duplicates": "drop", "placeholders": "drop"}
    out = tmp_path / "out"
    made(out, **{**config, "duplicates": "keep", "placeholders": "keep"})
    before = {p: p.read_bytes() for p in out.rglob("*-00000.*")}
    made(out, **config)
    finished = {key["key"] for key in rows(out)}
    # As if the process had died after the failures of the first shard were written.
    for path, data in before.items():
        if path.parent.name != "failures":
            path.write_bytes(data)
    metrics, _ = made(out, **config)
    assert {r["key"] for r in rows(out)} == finished
    assert metrics["train_pairs"] + metrics["dropped"] == 30


def test_a_retry_pass_begins_with_the_earlier_artifact(server, tmp_path, var):
    pairs = [
        (f"{i}", server.url(f"{i}", response(encoded(random_image(seed=i))))) for i in range(10)
    ]
    server.pages["/3"] = response(b"", 503)
    recipe = tiny()

    def execute(**changes):
        config = DownloadConfig(**WEB, paths=listed(tmp_path, pairs), **changes)
        dag = Dag()
        dag(run)
        planned = plan(dag, recipe.model_copy(update={"download": config}))["download"]
        logger = logging.getLogger("test")
        return Execution(planned, StageRecord(planned, None), force=False, logger=logger)()

    first = execute()
    server.pages["/3"] = response(encoded(random_image(seed=3)))
    server.asked.clear()
    second = execute(retries=("transient",))
    assert server.asked == ["/3"]
    assert (first.metrics["train_pairs"], second.metrics["train_pairs"]) == (9, 10)
    assert first.artifact.fingerprint != second.artifact.fingerprint
    assert len(rows(first.artifact.path)) == 9


def test_a_store_that_machines_share_comes_here_at_the_end(server, tmp_path):
    pairs = [
        (f"{i}", server.url(f"{i}", response(encoded(random_image(seed=i))))) for i in range(12)
    ]
    config = {**WEB, "paths": listed(tmp_path, pairs)}
    made(tmp_path / "out", **config, store=str(tmp_path / "shared"))
    made(tmp_path / "plain", **config)
    assert rows(tmp_path / "out") == rows(tmp_path / "plain")
    assert len(list((tmp_path / "shared" / "out" / IMAGES).iterdir())) == 2


def tar(path, members):
    with tarfile.open(path, "w") as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_tar_files_as_cc3m_wds_has_them(tmp_path):
    for number in range(2):
        members = []
        for i in range(5):
            stem = f"{number:02d}{i:03d}"
            about = {"url": f"http://example.org/{stem}", "caption": f"about {stem}"}
            members += [
                (f"{stem}.jpg", encoded(random_image(seed=i))),
                (f"{stem}.txt", stem.encode()),
            ]
            members += [(f"{stem}.json", json.dumps(about).encode())]
        tar(tmp_path / f"cc3m-train-{number:04d}.tar", members)
    tar(tmp_path / "cc3m-train-0002.tar", [
        ("a.jpg", encoded()), ("a.json", b'{"caption": "from json", "url": "u"}'),
        ("b.txt", b"no image"), ("c.jpg", encoded()), ("d.jpg", b"<html>"), ("d.txt", b"page"),
        ("e.jpg", encoded()), ("e.json", b"{"),
    ])  # fmt: skip
    damaged = (tmp_path / "cc3m-train-0000.tar").read_bytes()[:7000]
    (tmp_path / "cc3m-train-0003.tar").write_bytes(damaged)
    config = {"source": "webdataset", "paths": {"train": str(tmp_path / "cc3m-train-*.tar")},
              "shard_size": 8, "resize": "crop", "size": 48}  # fmt: skip
    metrics, _ = made(tmp_path / "out", **config)
    found = rows(tmp_path / "out")
    assert found[0]["caption"] == "00000"
    assert found[0]["origin"] == "http://example.org/00000"
    assert (found[0]["source"], found[0]["width"]) == ("webdataset", 48)
    assert "from json" in [r["caption"] for r in found]
    reasons = {k.removeprefix("failed/"): v for k, v in metrics.items() if k.startswith("failed")}
    assert reasons == {"no_image": 1, "no_caption": 1, "not_image/html": 1, "bad_member": 1,
                       "damaged_tar": 1}  # fmt: skip
    assert len({r["key"] for r in found}) == len(found) == metrics["train_pairs"]


def test_the_reference_list_with_its_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(encoded())
    (tmp_path / "images" / "a.jpg").write_bytes(encoded())
    (tmp_path / "list.tsv").write_text(
        "caption\timage\none\ta.jpg\ntwo\tmissing.jpg\nthree\t../secret.jpg\nfour\n"
    )
    config = {"source": "folder", "paths": {"train": str(tmp_path / "list.tsv")}}
    metrics, _ = made(tmp_path / "out", **config, images=str(tmp_path / "images"))
    assert [r["caption"] for r in rows(tmp_path / "out")] == ["one"]
    assert {r["reason"] for r in rows(tmp_path / "out", "failures")} == {
        "missing_file", "outside_folder", "no_tab"
    }  # fmt: skip
    assert metrics["dropped"] == 3


def test_a_hugging_face_data_set_with_images_or_addresses(server, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    url = server.url("a", response(encoded()))
    pq.write_table(pa.table({
        "caption": ["one", "two", None],
        "image": [{"bytes": encoded(random_image(seed=i)), "path": f"{i}.jpg"} for i in range(3)],
        "image_url": [url, url + "?b", url],
    }), folder / "train-0.parquet")  # fmt: skip
    config = {"source": "huggingface", "dataset": str(folder), "paths": {"train": "train"}}
    metrics, _ = made(
        tmp_path / "a", **config, columns={"caption": "caption", "image": "image"}, resize="crop"
    )
    assert [r["caption"] for r in rows(tmp_path / "a")] == ["one", "two"]
    assert metrics["failed/no_caption"] == 1
    web = {k: v for k, v in WEB.items() if k != "source"}
    made(tmp_path / "b", **config, **web, columns={"caption": "caption", "url": "image_url"})
    assert [r["caption"] for r in rows(tmp_path / "b")] == ["one"]
    assert [r["reason"] for r in rows(tmp_path / "b", "failures")] == ["http_404", "no_caption"]


def test_slices_make_two_splits_of_one_list(tmp_path):
    path = listed(tmp_path, [(f"{i}", f"http://example.org/{i}") for i in range(10)])["train"]
    source = source_of(DownloadConfig(
        source="cc3m", contact="x", paths={"validation": f"{path}[:4]", "test": f"{path}[4:]"}
    ))  # fmt: skip
    assert [p.caption for p in source.pairs("validation")] == ["0", "1", "2", "3"]
    assert [p.caption for p in source.pairs("test")] == ["4", "5", "6", "7", "8", "9"]


def test_a_list_without_a_contact_or_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"download\.contact is empty"):
        DownloadConfig(source="cc3m", paths={"train": "a.tsv"})
    source = source_of(DownloadConfig(source="cc3m", contact="x", paths={"train": "/no/a.tsv"}))
    with pytest.raises(ValueError, match=r"no file /no/a\.tsv"):
        source.identity()


def test_a_list_without_rows_or_without_a_image(server, tmp_path):
    with pytest.raises(ValueError, match="the source has no rows"):
        made(tmp_path / "a", **WEB, paths=listed(tmp_path, []))
    config = {**WEB, "paths": listed(tmp_path, [("gone", server.url("gone"))])}
    with pytest.raises(NothingKeptError, match=r"no pair of the split 'train' .*\(http_404: 1\)"):
        made(tmp_path / "b", **config)


def test_a_shard_without_images_passes_through_the_next_stages(tmp_path):
    from data.shards import as_bytes, from_bytes

    values = as_bytes(np.empty((0, 4, 3), np.float16))
    table = pa.table([pa.array([], pa.string()), values], schema=schemas.features(12))
    assert from_bytes(table, "feature").shape == (0, 12)


@pytest.mark.process
@pytest.mark.timeout(500)
def test_two_ray_workers_take_a_slice_each(server, tmp_path, var):
    pytest.importorskip("prefect_ray")
    pages = [response(encoded(random_image(seed=i))) for i in range(40)]
    pairs = [(f"{i}", server.url(f"{i}", page)) for i, page in enumerate(pages)]
    config = {**WEB, "paths": listed(tmp_path, pairs), "limit": None}
    overrides = {f"download.{k}": v for k, v in config.items()}
    overrides |= {"download.runner": "ray", "download.shards_per_task": 2}
    pipeline(tmp_path, var, "--stage", "download", "--overrides", json.dumps(overrides))
    (out,) = [p for p in (var / "store/download").iterdir() if p.is_dir()]
    assert len(rows(out)) == 40
    stats = [json.loads(p.read_text()) for p in sorted((out / "stats").iterdir())]
    makers = [s["made_by"] for s in stats]
    assert makers[0] == makers[1]
    assert makers[2] == makers[3]
    assert len(set(makers)) == 2
