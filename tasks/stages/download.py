"""Stage 1: image-caption pairs into image shards, with an account of what was lost and why."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq

from data.download import image_shards
from data.download.atomic_store import Store
from data.download.downloader import Plan, fill, planned, prepare
from data.download.duplicates import settle_duplicates
from data.download.image_codec import EncodedImage, process
from data.download.image_shards import FAILURES, STATS, OpenShard, Row, shard_name
from data.download.settings import FetchPlan, FetchSettings, HttpLimits, ImageRules
from data.io.atomic import write_json
from data.io.image_decoder import ImageError, any_size, decode
from data.shards import read_table, shard_names
from data.sources.base import Pair, Rejected, Source, SourceError, SourceSettings
from data.sources.registry import SOURCES
from tasks.config.download import DownloadConfig
from tasks.runner.context import StageContext
from tasks.runner.fan_out import fan_out, reporting
from tasks.runner.registry import stage_named

IMAGES = image_shards.IMAGES
_SAMPLE, _SAMPLES_OF_EACH = 24, 5


def source_of(config: DownloadConfig) -> Source:
    """The source that a recipe names."""
    return SOURCES[config.source](
        SourceSettings(
            paths=config.paths,
            limit=config.limit,
            images=config.images,
            dataset=config.dataset,
            columns=config.columns,
            revision=config.revision,
        )
    )


def settings_of(config: DownloadConfig, store: str) -> FetchSettings:
    """What the downloader wants to know of a recipe."""
    return FetchSettings(
        store=store,
        web=HttpLimits.of(config),
        images=ImageRules.of(config),
        **FetchPlan.of(config).model_dump(),
    )


def run(context: StageContext) -> dict[str, float]:
    """Write ``images``, ``failures`` and ``stats`` by shard, duplicates and ``stats.json``."""
    config: DownloadConfig = context.config
    source = source_of(config)
    if source.remote:
        _adopt(context)
        _fetch(context, source)
    else:
        _convert(context, source)
    store = Store(str(context.out))
    names = [name.removesuffix(".parquet") for name in shard_names(context.out / IMAGES)]
    if not names:
        raise SourceError(f"the source has no rows: {config.paths or config.source}")
    kinds = {
        *(("url", "content") if config.duplicates == "drop" else ()),
        *(("placeholder",) if config.placeholders == "drop" else ()),
    }
    duplicates = settle_duplicates(store, names, config.placeholder_addresses, kinds)
    repeated = Counter(duplicates.column("kind").to_pylist())
    return _account(context, source, repeated)


def _adopt(context: StageContext) -> None:
    """Begin with the shards of the artifact that has one retry pass fewer, if there is one."""
    config: DownloadConfig = context.config
    if not config.retries or any(context.out.iterdir()):
        return
    before = config.model_copy(update={"retries": config.retries[:-1]})
    from tasks.runner.execution import fingerprint
    from tasks.runner.store import find

    found = find("download", fingerprint(stage_named("download"), before, context.parts, {}))
    if found is None:
        return
    for name in (IMAGES, FAILURES, STATS, "plan"):
        # Links, not copies: files are replaced, never changed.
        shutil.copytree(found.path / name, context.out / name, copy_function=os.link)
    shutil.copy(found.path / "identity.json", context.out)


def _fetch(context: StageContext, source: Source) -> None:
    config: DownloadConfig = context.config
    # A shared store may serve several configurations: each has a folder of its own.
    address = f"{config.store}/{context.out.stem}" if config.store else str(context.out)
    settings = settings_of(config, address)
    plan = prepare(source, settings)
    with _watching(context, plan, len(config.retries)):
        names = plan.unfinished(len(config.retries))
        fan_out("download", fetch_batch, names, config, config=config, store=address)
    if config.store:
        _bring_here(plan.store, context.out)


def fetch_batch(names: Sequence[str], config: DownloadConfig, store: str) -> None:
    """Fetch some shards of a prepared store: what one task does, here or on another machine."""
    source, settings = source_of(config), settings_of(config, store)
    fill(source, settings, planned(settings), names)


def _bring_here(store: Store, out: Path) -> None:
    here = Store(str(out))
    for folder in (IMAGES, FAILURES, STATS):
        for name in store.names(folder, ""):
            if not here.exists(f"{folder}/{name}"):
                with store.open(f"{folder}/{name}") as handle:
                    here.write(f"{folder}/{name}", partial(shutil.copyfileobj, handle))


def _watching(context: StageContext, plan: Plan, passes: int) -> AbstractContextManager[None]:
    """Report what finished shards say, wherever they are made, until the block ends."""
    total = sum(plan.rows.values())
    began = time.time()
    seen: dict[str, dict[str, Any]] = {}

    def report() -> None:
        for name in plan.store.names(STATS, ".json"):
            if seen.get(name, {}).get("passes", -1) < passes:
                seen[name] = plan.store.read_json(f"{STATS}/{name}")
        done = sum(s["rows"] for s in seen.values())
        fresh = [s for s in seen.values() if s["finished"] >= began]
        reasons = _reasons(seen.values())
        values = {f"failed/{reason}": float(count) for reason, count in reasons.items()}
        values["rows_done"] = float(done)
        values["good"] = float(sum(s["good"] for s in seen.values()))
        values["success_rate"] = values["good"] / max(1, done)
        values["rows_per_second"] = sum(s["rows"] for s in fresh) / (time.time() - began)
        values["images_per_second"] = sum(s["good"] for s in fresh) / (time.time() - began)
        context.log.metrics(values, done)
        resumed = done - sum(s["rows"] for s in fresh)
        context.log.progress(done, total, "addresses", resumed)

    return reporting(report)


def _convert(context: StageContext, source: Source) -> None:
    """Shards of a source that holds the images themselves."""
    config: DownloadConfig = context.config
    store, rules = Store(str(context.out)), ImageRules.of(config)
    store.sweep()
    seen = 0

    def made(row: Pair | Rejected) -> EncodedImage | ImageError | None:
        if isinstance(row, Rejected):
            return None
        try:
            return process(row.image or b"", rules)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in source.splits():
            rows, number = source.pairs(split), 0
            while chunk := list(islice(rows, config.shard_size)):
                name = shard_name(split, number)
                if not store.exists(f"{STATS}/{name}.json"):
                    _write(store, name, zip(chunk, pool.map(made, chunk), strict=True))
                seen += len(chunk)
                number += 1
                context.log.progress(seen, seen, "pairs")


def _write(
    store: Store,
    name: str,
    rows: Iterator[tuple[Pair | Rejected, EncodedImage | ImageError | None]],
) -> None:
    shard = OpenShard(store, name, in_order=True)
    try:
        for pair, image in rows:
            if isinstance(pair, Rejected):
                row = Row(pair.key, pair.caption, pair.place, "")
                shard.fail(row, pair.reason, pair.place)
                continue
            row = Row(pair.key, pair.caption, pair.origin, pair.source)
            if isinstance(image, EncodedImage):
                shard.add(row, pair.image or b"", image, shard.keep(image.data))
            elif isinstance(image, ImageError):
                shard.fail(row, image.reason, image.detail)
        shard.finish()
    finally:
        shard.close()


def _reasons(stats: Any) -> Counter[str]:
    """Failures by reason; ``not_image:html`` as ``not_image/html``, which MLflow can name."""
    reasons: Counter[str] = Counter()
    for shard in stats:
        for reason, count in shard["failures"].items():
            reasons[reason.replace(":", "/")] += count
    return reasons


def _account(context: StageContext, source: Source, repeated: Counter[str]) -> dict[str, float]:
    """Write ``stats.json``, show the account, and return the numbers."""
    out = context.out
    store = Store(str(out))
    stats = [store.read_json(f"{STATS}/{name}") for name in store.names(STATS, ".json")]
    reasons = _reasons(stats)
    rows = {
        split: sum(s["good"] for s in stats if s["name"].rpartition("-")[0] == split)
        for split in source.splits()
    }
    summary = {"rows": rows, "dropped": dict(reasons), "duplicates": dict(repeated)}
    write_json(out / "stats.json", summary)
    _show(context, reasons)
    total = sum(s["rows"] for s in stats)
    return {
        **{f"{split}_pairs": float(count) for split, count in rows.items()},
        **{f"failed/{reason}": float(count) for reason, count in reasons.items()},
        **{f"duplicates/{kind}": float(count) for kind, count in repeated.items()},
        "dropped": float(sum(reasons.values())),
        "success_rate": sum(rows.values()) / max(1, total),
    }


def _show(context: StageContext, reasons: Counter[str]) -> None:
    """The gallery, failures by reason and by host with samples of each, and sizes."""
    folder = context.out / IMAGES
    context.log.table("sample", _sample(folder))
    hosts: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in shard_names(context.out / FAILURES):
        for row in read_table(context.out / FAILURES / name, kind="failures").to_pylist():
            hosts[_host(row["origin"]), row["reason"]] += 1
            if len(samples[row["reason"]]) < _SAMPLES_OF_EACH:
                samples[row["reason"]].append(row)
    if reasons:
        ranked = reasons.most_common()
        context.log.table(
            "failures_by_reason",
            {"reason": [r for r, _ in ranked], "count": [n for _, n in ranked]},
        )
        worst = hosts.most_common(200)
        context.log.table(
            "failures_by_host",
            {
                "host": [h for (h, _), _ in worst],
                "reason": [r for (_, r), _ in worst],
                "count": [n for _, n in worst],
            },
        )
        shown = [row for rows in samples.values() for row in rows]
        columns = ("reason", "origin", "detail", "caption", "key")
        context.log.table("failure_samples", {c: [row[c] for row in shown] for c in columns})
    _show_sizes(context, folder)


def _show_sizes(context: StageContext, folder: Path) -> None:
    from matplotlib.figure import Figure

    columns = ["original_width", "original_height"]
    tables = [pq.read_table(folder / name, columns=columns) for name in shard_names(folder)]
    widths, heights = (np.concatenate([t.column(c).to_numpy() for t in tables]) for c in columns)
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    panels[0].hist([widths, heights], bins=40, label=["width", "height"])
    panels[0].set(xlabel="pixels as they came", ylabel="images", yscale="log")
    panels[0].legend()
    panels[1].hist(widths / heights, bins=40)
    panels[1].set(xlabel="width to height", yscale="log")
    context.log.figure("sizes", figure)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _sample(folder: Path) -> dict[str, list[object]]:
    rows: list[dict[str, Any]] = []
    for name in shard_names(folder):
        table = read_table(folder / name, ["key", "caption", "image"], "images")
        rows += table.slice(0, _SAMPLE - len(rows)).to_pylist()
        if len(rows) >= _SAMPLE:
            break
    return {
        "image": [decode(r["image"], any_size) for r in rows],
        "caption": [r["caption"] for r in rows],
        "key": [r["key"] for r in rows],
    }
