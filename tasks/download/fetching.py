"""Image shards of a source that names addresses, fetched here or on the workers of a cluster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.download.downloader import fill
from data.download.image_shards import finished_shards
from data.download.plan import Plan, planned, prepare
from data.io import journal
from data.io.journal import Written, files_in, sha256_of
from data.io.links import link_or_copy
from data.shards import ShardError
from data.sources.base import Source
from tasks.config.download import DownloadConfig
from tasks.download.account import reasons_of
from tasks.download.sources import settings_of, source_of
from tasks.runner.fan_out import fan_out, reporting
from tasks.tracking.stage_log import StageLog

_ATTEMPTS = 2  # at shards that a shared store does not give back as they were written


def adopt(earlier: ImageShards, out: Path) -> None:
    """Begin an empty folder with the shards of an artifact that had fewer retry passes."""
    if files_in(out):
        return
    for name in (ImageShards.FOLDER, ImageShards.FAILURES, ImageShards.STATS, "plan"):
        for file in files_in(earlier.path / name):
            link_or_copy(file, out / file.relative_to(earlier.path))
    shutil.copy(earlier.path / "identity.json", out)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    files = {name: file for name, file in earlier.manifest().files.items() if name in there}
    journal.add(out, {n: Written(f["bytes"], f["sha256"]) for n, f in files.items()})


def fetch(config: DownloadConfig, source: Source, out: Path, log: StageLog) -> None:
    """Fetch what is not there yet into image shards, failures and statistics."""
    # A shared store may serve several configurations: each has a folder of its own.
    address = f"{config.store}/{out.stem}" if config.store else str(out)
    settings = settings_of(config, address)
    plan, passes = prepare(source, settings), len(config.retries)
    for _ in range(_ATTEMPTS):
        with _watching(log, plan, passes):
            names = plan.unfinished(passes)
            fan_out("download", fetch_batch, names, config, config=config, store=address)
        damaged = _bring_here(plan.store, out) if config.store else []
        if not damaged:
            return
    raise ShardError(
        f"what was written to {address} is not what is read there: {damaged[:5]}; use another "
        "download.store"
    )


def fetch_batch(names: Sequence[str], config: DownloadConfig, store: str) -> None:
    """Fetch some shards of a prepared store: what one task does, here or on another machine."""
    source, settings = source_of(config), settings_of(config, store)
    fill(source, settings, planned(settings), names)


def _bring_here(store: Store, out: Path) -> list[str]:
    """Copy finished shards from a shared store.

    Returns:
        Those that are not what was written; they are removed there, to be fetched again.
    """
    here, damaged = Store(str(out)), []
    have = finished_shards(here)
    for name in sorted(finished_shards(store) - have):
        stats = f"{ImageShards.STATS}/{name}.json"
        wanted = store.read_json(stats).get("sha256", {})
        files = [f"{f}/{name}.parquet" for f in (ImageShards.FOLDER, ImageShards.FAILURES)]
        for file in (*files, stats):
            with store.open(file) as handle:
                here.write(file, partial(shutil.copyfileobj, handle))
        if any(sha256_of(out / file) != wanted[file] for file in files if file in wanted):
            damaged.append(name)
            for at in (store, here):
                for file in (stats, *files):
                    at.remove(file)
    return damaged


def _watching(log: StageLog, plan: Plan, passes: int) -> AbstractContextManager[None]:
    """Report what finished shards say, wherever they are made, until the block ends."""
    total = sum(plan.rows.values())
    began = time.time()
    seen: dict[str, dict[str, Any]] = {}

    def report() -> None:
        for name in plan.store.names(ImageShards.STATS, ".json"):
            if seen.get(name, {}).get("passes", -1) < passes:
                seen[name] = plan.store.read_json(f"{ImageShards.STATS}/{name}")
        done = sum(s["rows"] for s in seen.values())
        fresh = [s for s in seen.values() if s["finished"] >= began]
        reasons = reasons_of(seen.values())
        values = {f"failed/{reason}": float(count) for reason, count in reasons.items()}
        values["rows_done"] = float(done)
        values["good"] = float(sum(s["good"] for s in seen.values()))
        values["success_rate"] = values["good"] / max(1, done)
        values["rows_per_second"] = sum(s["rows"] for s in fresh) / (time.time() - began)
        values["images_per_second"] = sum(s["good"] for s in fresh) / (time.time() - began)
        log.metrics(values, done)
        resumed = done - sum(s["rows"] for s in fresh)
        log.progress(done, total, "addresses", resumed)

    return reporting(report)
