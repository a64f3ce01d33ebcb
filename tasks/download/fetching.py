"""Image shards of a source that names addresses, fetched here or on the workers of a cluster."""

from __future__ import annotations

import os
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
from data.download.plan import Plan, planned, prepare
from data.sources.base import Source
from tasks.config.download import DownloadConfig
from tasks.download.account import reasons_of
from tasks.download.sources import settings_of, source_of
from tasks.runner.fan_out import fan_out, reporting
from tasks.tracking.stage_log import StageLog


def adopt(earlier: ImageShards, out: Path) -> None:
    """Begin an empty folder with the shards of an artifact that had fewer retry passes."""
    if any(out.iterdir()):
        return
    for name in (ImageShards.FOLDER, ImageShards.FAILURES, ImageShards.STATS, "plan"):
        # Links, not copies: files are replaced, never changed.
        shutil.copytree(earlier.path / name, out / name, copy_function=os.link)
    shutil.copy(earlier.path / "identity.json", out)


def fetch(config: DownloadConfig, source: Source, out: Path, log: StageLog) -> None:
    """Fetch what is not there yet into image shards, failures and statistics."""
    # A shared store may serve several configurations: each has a folder of its own.
    address = f"{config.store}/{out.stem}" if config.store else str(out)
    settings = settings_of(config, address)
    plan = prepare(source, settings)
    with _watching(log, plan, len(config.retries)):
        names = plan.unfinished(len(config.retries))
        fan_out("download", fetch_batch, names, config, config=config, store=address)
    if config.store:
        _bring_here(plan.store, out)


def fetch_batch(names: Sequence[str], config: DownloadConfig, store: str) -> None:
    """Fetch some shards of a prepared store: what one task does, here or on another machine."""
    source, settings = source_of(config), settings_of(config, store)
    fill(source, settings, planned(settings), names)


def _bring_here(store: Store, out: Path) -> None:
    here = Store(str(out))
    for folder in (ImageShards.FOLDER, ImageShards.FAILURES, ImageShards.STATS):
        for name in store.names(folder, ""):
            if not here.exists(f"{folder}/{name}"):
                with store.open(f"{folder}/{name}") as handle:
                    here.write(f"{folder}/{name}", partial(shutil.copyfileobj, handle))


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
