"""What became of the pairs, counted by hand from the shards of a download."""

import json
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest
from small_store import images_table
from trained_tiny import RecordingLog

from data import schemas
from data.shards import write_shard
from tasks.download.account import account, reasons_of

SOURCE = SimpleNamespace(splits=lambda: ["train", "validation"])


def failed(number, reason, host="x.org"):
    values = {"key": f"k{number}", "caption": "c", "origin": f"http://{host}/{number}",
              "source": "s", "reason": reason, "detail": "d", "retry_at": 0.0}  # fmt: skip
    return values


@pytest.fixture
def out(tmp_path):
    """Three shards: three and one pairs for training, two for validation; ten were lost."""
    lost = [failed(i, "http_404") for i in range(7)] + [failed(7, "not_image:html", "y.org")]
    lost += [failed(8, "not_image:html", "y.org"), failed(9, "timeout", "[broken")]
    for name, good, failures in (
        ("train-00000", 3, lost[:7]), ("train-00001", 1, lost[7:]), ("validation-00000", 2, [])
    ):  # fmt: skip
        keys = [f"{name}/{i}" for i in range(good)]
        write_shard(tmp_path / "images" / f"{name}.parquet", images_table(keys, ["a cat"] * good))
        table = pa.Table.from_pylist(failures, schema=schemas.FAILURES)
        write_shard(tmp_path / "failures" / f"{name}.parquet", table)
        stats = {"name": name, "rows": good + len(failures), "good": good,
                 "failures": dict(Counter(f["reason"] for f in failures))}  # fmt: skip
        (tmp_path / "stats").mkdir(exist_ok=True)
        (tmp_path / "stats" / f"{name}.json").write_text(json.dumps(stats))
    return tmp_path


def test_pairs_and_losses_add_up(out):
    log = RecordingLog()
    metrics = account(SOURCE, out, Counter(url=2), log)
    assert metrics == {
        "train_pairs": 4, "validation_pairs": 2, "failed/http_404": 7,
        "failed/not_image/html": 2, "failed/timeout": 1, "duplicates/url": 2, "dropped": 10,
        "success_rate": pytest.approx(6 / 16),
    }  # fmt: skip
    written = json.loads((out / "stats.json").read_text())
    assert written["rows"] == {"train": 4, "validation": 2}
    assert written["dropped"] == {"http_404": 7, "not_image/html": 2, "timeout": 1}


def test_losses_are_shown_by_reason_and_by_host_with_a_few_of_each(out):
    log = RecordingLog()
    account(SOURCE, out, Counter(), log)
    assert log.tables["failures_by_reason"] == {
        "reason": ["http_404", "not_image/html", "timeout"], "count": [7, 2, 1],
    }  # fmt: skip
    hosts = log.tables["failures_by_host"]
    assert list(zip(hosts["host"], hosts["count"], strict=True)) == [
        ("x.org", 7), ("y.org", 2), ("", 1),  # an address that cannot be taken apart
    ]  # fmt: skip
    shown = log.tables["failure_samples"]
    assert Counter(shown["reason"]) == {"http_404": 5, "not_image:html": 2, "timeout": 1}
    assert [image.size for image in log.tables["sample"]["image"]] == [(40, 30)] * 6
    assert "sizes" in log.figures


def test_a_download_without_a_loss_shows_none(out):
    for path in (out / "failures").glob("train-*.parquet"):
        write_shard(path, schemas.FAILURES.empty_table())
    for path in (out / "stats").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"failures": {}}))
    log = RecordingLog()
    metrics = account(SOURCE, out, Counter(), log)
    assert metrics["dropped"] == 0
    assert not any(name.startswith("failure") for name in log.tables)


def test_reasons_can_be_named_by_mlflow():
    stats = [{"failures": {"not_image:html": 1}}, {"failures": {"not_image:html": 2, "timeout": 1}}]
    assert reasons_of(stats) == {"not_image/html": 3, "timeout": 1}
