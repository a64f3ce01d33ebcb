"""The plan of a list: rows, repeats, jobs, and folders of another list."""

import pytest
from hostile import limits, listed, settings

from data.download.image_shards import FAILURES, IMAGES, STATS
from data.download.plan import IdentityError, jobs, planned, prepare
from data.download.settings import ImageRules
from data.sources.captioned_urls import CaptionedUrls


def rows(count=25):
    return [(f"caption {i}", f"http://example.org/{i}.jpg") for i in range(count)]


def finish(plan, name, passes=0):
    """Give a shard its three files; only what it says of its passes is read here."""
    for folder in (IMAGES, FAILURES):
        plan.store.write(f"{folder}/{name}.parquet", lambda handle: handle.write(b"x"))
    plan.store.write_json(f"{STATS}/{name}.json", {"passes": passes})


def test_a_plan_has_the_shards_that_are_not_finished(tmp_path):
    source, given = listed(tmp_path, rows()), settings(tmp_path / "out", shard_size=10)
    plan = prepare(source, given)
    assert plan.rows == {"train": 25}
    assert plan.unfinished(0) == ["train-00000", "train-00001", "train-00002"]
    plan.store.write_json(f"{STATS}/train-00000.json", {"passes": 0})  # proves nothing alone
    finish(plan, "train-00001")
    finish(plan, "train-00002", passes=1)
    assert plan.unfinished(0) == ["train-00000"]
    assert plan.unfinished(1) == ["train-00000", "train-00001"]
    assert planned(given).rows == prepare(source, given).rows == plan.rows


def test_a_repeated_address_is_fetched_with_its_first(tmp_path):
    listing = rows()
    listing[4] = ("again", "HTTP://EXAMPLE.org:80/3.jpg#part")
    listing[24] = ("last", "http://example.org/3.jpg")
    source, given = listed(tmp_path, listing), settings(tmp_path / "out", shard_size=10)
    plan = prepare(source, given)
    repeats = plan.repeats("train").to_pylist()
    assert [(r["row"], r["first"], r["caption"]) for r in repeats] == [
        (4, 3, "again"),
        (24, 3, "last"),
    ]
    made = {job["name"]: job for job in jobs(source, plan, plan.shards("train"))}
    assert [len(job["rows"]) for job in made.values()] == [11, 10, 4]
    captions = [row[1] for row in made["train-00000"]["rows"]]
    assert captions[-2:] == ["again", "last"]
    assert list(jobs(source, plan, ["train-00001"])) == [made["train-00001"]]


def test_rows_that_cannot_be_read_are_jobs_with_a_reason(tmp_path):
    path = tmp_path / "list.tsv"
    path.write_bytes(b"no tab\na\thttp://example.org/1\nno tab\n")
    source, given = CaptionedUrls({"train": str(path)}), settings(tmp_path / "out")
    plan = prepare(source, given)
    assert len(plan.repeats("train")) == 0
    (job,) = jobs(source, plan, ["train-00000"])
    assert [row[4] for row in job["rows"]] == ["no_tab", "", "no_tab"]


def test_another_list_or_configuration_is_refused_with_what_differs(tmp_path):
    source = listed(tmp_path, rows())
    prepare(source, settings(tmp_path / "out"))
    for changes, named in (
        ({"shard_size": 20}, r"shard_size: 10 then, 20 now"),
        ({"images": ImageRules(resize="crop", size=64)}, r"images.size: 48 then, 64 now"),
        ({"web": limits(deadline=9.0)}, r"web.deadline: 20.0 then, 9.0 now"),
    ):
        with pytest.raises(IdentityError, match=named):
            prepare(source, settings(tmp_path / "out", **changes))
    (tmp_path / "list.tsv").open("a").write("one\thttp://127.0.0.1/more\n")
    with pytest.raises(IdentityError, match="source: '"):
        prepare(source, settings(tmp_path / "out"))
