"""The worker's protocol: settings and jobs as lines in, one line for each shard out."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile import encoded, limits, random_image, response

from data.download.settings import ImageRules

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.timeout(120), pytest.mark.process]


@pytest.fixture
def worker(tmp_path):
    """A worker process that has its settings."""
    process = subprocess.Popen(
        [sys.executable, "-m", "data.download.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    settings = {
        "store": str(tmp_path / "out"),
        "web": limits().model_dump(),
        "images": ImageRules(resize="crop", size=48).model_dump(),
        "in_flight": 8,
    }
    process.stdin.write(json.dumps(settings) + "\n")
    process.stdin.flush()
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def send(worker, job):
    worker.stdin.write(json.dumps(job) + "\n")
    worker.stdin.flush()


def test_a_job_is_answered_with_its_statistics_and_the_next_pass_mends(worker, server, tmp_path):
    pages = {i: response(encoded(random_image(seed=i))) for i in range(3)}
    rows = [[f"k{i}", f"c{i}", server.url(f"{i}", page), "test", ""] for i, page in pages.items()]
    rows.append(["k3", "no tab", "list.tsv line 4", "", "no_tab"])
    rows.append(["k4", "same address", server.url("0", pages[0]), "test", ""])
    server.pages["/1"] = response(b"", 503)
    send(worker, {"name": "train-00000", "passes": 0, "rows": rows})
    answer = json.loads(worker.stdout.readline())
    assert (answer["name"], answer["rows"], answer["good"]) == ("train-00000", 5, 3)
    assert answer["failures"] == {"http_503": 1, "no_tab": 1}
    assert answer["peak_bytes"] > 0
    found = pq.read_table(tmp_path / "out/images/train-00000.parquet").column("key").to_pylist()
    assert found == ["k0", "k2", "k4"]
    server.pages["/1"] = pages[1]
    send(worker, {"name": "train-00000", "passes": 1, "mode": "transient"})
    answer = json.loads(worker.stdout.readline())
    assert (answer["passes"], answer["good"], answer["failures"]) == (1, 4, {"no_tab": 1})


def test_it_ends_when_its_input_does(worker):
    worker.stdin.close()
    assert worker.wait(30) == 0
    assert worker.stdout.read() == ""


def test_a_place_that_cannot_be_written_is_an_answer_not_a_death(worker, server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "failures").write_text("in the way")
    send(worker, {"name": "train-00000", "passes": 0, "rows": []})
    answer = json.loads(worker.stdout.readline())
    assert answer["name"] == "train-00000"
    assert "cannot write" in answer["error"]
