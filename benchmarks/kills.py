"""A run of the download stage over the mix of good and bad addresses, killed at random moments.

    GILL_VAR=/tmp/kills python -m benchmarks.kills --urls 20000 --kills 5

Each kill is a SIGKILL to the pipeline's process, to a worker of it or to all of them; after the
first and the last the pipeline is started again. At the end the artifact must hold exactly the good
images, and every other row as a failure with the right reason. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.download import serving_mock_web
from benchmarks.mock_web import kinds
from data.shards import read_table, shard_names
from tasks.paths import var_folder

OUTCOME = {
    "gone": "http_404", "stall": "timeout", "short": "truncated", "page": "not_image:html",
    "huge": "too_large", "loop": "too_many_redirects", "inside": "blocked_address",
}  # fmt: skip
SHARD = 500
WHOM = ("pipeline", "worker", "all")


def start(overrides: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The download stage of the tiny recipe in a process of its own."""
    command = [sys.executable, "-m", "flows.pipeline", "--recipe", "tiny", "--stage", "download"]
    return subprocess.Popen([*command, "--overrides", json.dumps(overrides)])


def finished_shards() -> int:
    """Shards of the unfinished artifact that are there."""
    return len(list((var_folder() / "store" / "download").glob("*.partial/stats/*.json")))


def kill(process: subprocess.Popen[bytes], whom: str) -> None:
    """Kill the pipeline, one of its workers, or all at once."""
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [c for c in children if "data.download.worker" in c.cmdline()]
    servers = [c for c in children if "uvicorn" in c.cmdline()]
    if whom != "worker":
        process.kill()
        process.wait()
        for server in servers:  # Prefect's for this one process: nobody else ends it
            server.kill()
    for worker in {"pipeline": [], "worker": workers[:1]}.get(whom, workers):
        worker.kill()


def main() -> None:
    """Run, kill, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    asked = kinds(given.urls, mixed=True)
    shards = -(-given.urls // SHARD)
    targets = sorted(moments.sample(range(1, shards - 2), given.kills))
    victims = [WHOM[i % len(WHOM)] for i in range(given.kills)]
    moments.shuffle(victims)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, serving_mock_web(Path(name)) as (ports, _):
        source = Path(name) / "list.tsv"
        base = f"http://127.0.0.1:{ports['http']}"
        source.write_text(
            "".join(f"caption {i}\t{base}/{kind}/{i}.jpg\n" for i, kind in enumerate(asked))
        )
        settings = {
            "source": "cc3m", "paths": {"train": str(source)}, "contact": "test@example.org",
            "limit": None, "shard_size": SHARD, "resize": "crop", "deadline": 5.0, "per_host": 64,
            "allowed_networks": ["127.0.0.1/32"],
        }  # fmt: skip
        overrides = {f"download.{k}": v for k, v in settings.items()}
        process = start(overrides)
        done: list[str] = []
        while process.poll() is None or len(done) < given.kills:
            if process.poll() is not None:
                raise RuntimeError("the pipeline ended before all kills; ask for more addresses")
            if len(done) < given.kills and finished_shards() >= targets[len(done)]:
                whom = victims[len(done)]
                print(f"after {finished_shards()} shards: SIGKILL to {whom}", flush=True)
                kill(process, whom)
                done.append(whom)
                if whom != "worker":
                    process = start(overrides)
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(f"the pipeline ended with {process.returncode}")
    summary = json.loads((var_folder() / "last_run.json").read_text())
    stage = summary["stages"]["download"]
    out = var_folder() / "store" / "download" / stage["fingerprint"]
    good = [k for n in shard_names(out / "images")
            for k in read_table(out / "images" / n, ["key"])["key"].to_pylist()]  # fmt: skip
    bad = {
        row["key"]: row["reason"]
        for n in shard_names(out / "failures")
        for row in read_table(out / "failures" / n).to_pylist()
    }
    keys = [f"train-{i:09d}" for i in range(given.urls)]
    expected = {k: OUTCOME[kind] for k, kind in zip(keys, asked, strict=True) if kind != "good"}
    exact = good == [k for k in keys if k not in expected] and bad == expected
    line = {
        "urls": given.urls, "kills": done, "exact": exact, "good": len(good),
        "failures": dict(Counter(bad.values())), "seconds": round(time.monotonic() - began, 1),
        "partial_files": len(list(out.rglob("*.part"))), "mlflow_url": summary["mlflow_url"],
    }  # fmt: skip
    print(json.dumps(line))
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
