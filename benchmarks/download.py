"""The downloader against img2dataset, on a server of its own on loopback.

    python -m benchmarks.download --peer-python /path/to/venv/bin/python

Cases: HTTP at 256 and 384 pixels (centre crop), HTTPS at 256, and a mix of good and bad addresses
(``benchmarks.mock_web.MIX``). Both sides get the same list, two processes and 64 requests in flight
in each, and write Parquet. They take turns; each turn is a process of its own whose time (start
included), processor time of the whole tree and peak memory of the whole tree are taken. Without
``--peer-python`` only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import certifi
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import trustme

from benchmarks.mock_web import kinds

PROCESSES, IN_FLIGHT, SHARD, TIMEOUT = 2, 64, 1000, 10

OURS = f"""
import sys
from data.download.downloader import fill
from data.download.plan import prepare
from data.download.settings import FetchSettings, HttpLimits, ImageRules
from data.sources.captioned_urls import CaptionedUrls
source = CaptionedUrls({{"train": sys.argv[1]}})
web = HttpLimits(contact="benchmark@example.org", deadline={TIMEOUT}, per_host={IN_FLIGHT},
                allowed_networks=("127.0.0.1/32",))
given = FetchSettings(store=sys.argv[2], web=web,
                      images=ImageRules(resize="crop", size=int(sys.argv[3])), shard_size={SHARD},
                      processes={PROCESSES}, in_flight={IN_FLIGHT})
fill(source, given, prepare(source, given))
"""

PEER = f"""
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], input_format="parquet", url_col="url", caption_col="caption",
             output_folder=sys.argv[2], output_format="parquet", image_size=int(sys.argv[3]),
             resize_mode="center_crop", processes_count={PROCESSES}, thread_count={IN_FLIGHT},
             timeout={TIMEOUT}, number_sample_per_shard={SHARD}, enable_wandb=False)
"""


@dataclass(frozen=True)
class Case:
    """What is asked of both sides."""

    scheme: str = "http"
    size: int = 256
    mixed: bool = False


CASES = {
    "http_256": Case(),
    "https_256": Case("https"),
    "http_384": Case(size=384),
    "mix_256": Case(mixed=True),
}


@contextmanager
def serving_mock_web(folder: Path) -> Iterator[tuple[dict[str, int], Path]]:
    """The server: its ports by scheme, and a CA store of the usual size that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    store = folder / "ca.pem"
    store.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    command = [sys.executable, "-m", "benchmarks.mock_web", str(folder / "server.pem")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        plain, secure = map(int, server.stdout.readline().split())
        try:
            yield {"http": plain, "https": secure}, store
        finally:
            server.kill()


def measured(command: list[str], environment: dict[str, str], log: Path) -> dict[str, float]:
    """Seconds, processor seconds and peak bytes of a command and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        peak, stop = [0.0], threading.Event()

        def sample() -> None:
            root = psutil.Process(process.pid)
            while not stop.wait(0.1):
                try:
                    tree = [root, *root.children(recursive=True)]
                    peak[0] = max(peak[0], sum(one.memory_info().rss for one in tree))
                except psutil.NoSuchProcess:
                    continue  # one ended meanwhile; the next sample is as good

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        code = process.wait()
        stop.set()
        thread.join()
    if code:
        raise RuntimeError(f"{command[0]} ended with {code}: {log.read_text()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - began, "cpu": cpu, "peak": peak[0]}


def one_turn(
    side: str, peer: str, case: Case, urls: list[str], store: Path, folder: Path
) -> dict[str, float]:
    """Run one side over a list; returns what it cost for each image it wrote."""
    out = folder / "out"
    environment = {**os.environ, "SSL_CERT_FILE": str(store), "NO_ALBUMENTATIONS_UPDATE": "1"}
    if side == "ours":
        source = folder / "list.tsv"
        source.write_text("".join(f"caption {i}\t{u}\n" for i, u in enumerate(urls)))
        command = [sys.executable, "-c", OURS]
        shards = "out/images/*.parquet"
    else:
        source = folder / "list.parquet"
        captions = [f"caption {i}" for i in range(len(urls))]
        pq.write_table(pa.table({"url": urls, "caption": captions}), source)
        script = folder / "peer.py"  # its processes import the script again
        script.write_text(PEER)
        command = [peer, str(script)]
        shards = "out/*.parquet"
    found = measured([*command, str(source), str(out), str(case.size)], environment, folder / "log")
    images = 0
    for path in folder.glob(shards):
        column = "image" if side == "ours" else "jpg"
        table = pq.read_table(path, columns=[column])
        images += len(table) - table.column(column).null_count
    return {
        "images_per_s": images / found["seconds"],
        "addresses_per_s": len(urls) / found["seconds"],
        "cpu_ms": 1000 * found["cpu"] / max(1, images),
        "peak_mb": found["peak"] / 1e6,
        "images": images,
    }


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", default="", help="interpreter that has img2dataset")
    parser.add_argument("--urls", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    given = parser.parse_args()
    sides = ["ours", "peer"] if given.peer_python else ["ours"]
    cases: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, serving_mock_web(Path(name)) as (ports, store):
        for case_name in given.cases:
            case = CASES[case_name]
            base = f"{case.scheme}://127.0.0.1:{ports[case.scheme]}"
            asked = kinds(given.urls, case.mixed)
            urls = [f"{base}/{kind}/{i}.jpg" for i, kind in enumerate(asked)]
            turns: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for turn in range(given.turns):
                for side in sides:
                    with tempfile.TemporaryDirectory(dir=name) as folder:
                        found = one_turn(side, given.peer_python, case, urls, store, Path(folder))
                    turns[side].append(found)
                    said = ", ".join(f"{k} {v:.1f}" for k, v in found.items())
                    print(f"{case_name}, turn {turn + 1}, {side}: {said}", flush=True)
            cases[case_name] = {
                f"{side}_{key}": round(statistics.median(t[key] for t in turns[side]), 2)
                for side in sides
                for key in turns[side][0]
            }
            if given.peer_python:
                ours, peer = (cases[case_name][f"{s}_images_per_s"] for s in sides)
                cases[case_name]["ratio"] = round(ours / peer, 2)
    first = cases[given.cases[0]]
    line = {
        "ours_images_per_s": first["ours_images_per_s"],
        "peer_images_per_s": first.get("peer_images_per_s"),
        "ratio": first.get("ratio"),
        "ours_cpu_ms": first["ours_cpu_ms"],
        "peer_cpu_ms": first.get("peer_cpu_ms"),
        "ours_peak_mb": first["ours_peak_mb"],
        "peer_peak_mb": first.get("peer_peak_mb"),
        "cases": cases,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
