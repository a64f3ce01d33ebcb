"""What became of the pairs: counts by reason and host, samples, and a gallery."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq

from data.artifacts import ImageShards
from data.download.atomic_store import Store
from data.io.atomic import write_json
from data.io.image_decoder import any_size, decode
from data.shards import read_table, shard_names
from data.sources.base import Source
from tasks.runner.stage import NothingKeptError
from tasks.tracking.stage_log import StageLog

_SAMPLE, _SAMPLES_OF_EACH = 24, 5


def reasons_of(stats: Any) -> Counter[str]:
    """Failures by reason; ``not_image:html`` as ``not_image/html``, which MLflow can name."""
    reasons: Counter[str] = Counter()
    for shard in stats:
        for reason, count in shard["failures"].items():
            reasons[reason.replace(":", "/")] += count
    return reasons


def account(source: Source, out: Path, repeated: Counter[str], log: StageLog) -> dict[str, float]:
    """Write ``stats.json``, show the account, and return the numbers.

    Args:
        repeated: duplicates by kind.
    """
    stats = _stats(out)
    reasons = reasons_of(stats)
    rows = {
        split: sum(s["good"] for s in stats if s["name"].rpartition("-")[0] == split)
        for split in source.splits()
    }
    summary = {"rows": rows, "dropped": dict(reasons), "duplicates": dict(repeated)}
    write_json(out / "stats.json", summary)
    _show(out, reasons, log)
    total = sum(s["rows"] for s in stats)
    return {
        **{f"{split}_pairs": float(count) for split, count in rows.items()},
        **{f"failed/{reason}": float(count) for reason, count in reasons.items()},
        **{f"duplicates/{kind}": float(count) for kind, count in repeated.items()},
        "dropped": float(sum(reasons.values())),
        "success_rate": sum(rows.values()) / max(1, total),
    }


def check_kept(source: Source, out: Path) -> None:
    """See that every split has pairs, since later stages can do nothing with an empty one.

    Raises:
        NothingKeptError: says which has none, and the counts of what became of its rows.
    """
    stats = _stats(out)
    for split in source.splits():
        of_split = [s for s in stats if s["name"].rpartition("-")[0] == split]
        if not any(shard["good"] for shard in of_split):
            counts = ", ".join(f"{r}: {n}" for r, n in reasons_of(of_split).most_common())
            raise NothingKeptError(
                f"no pair of the split {split!r} was kept ({counts or 'it has no rows'}); "
                f"{out / ImageShards.FAILURES} lists them. Mend the source; or, where hosts did "
                'not answer, try them again with download.retries=["transient"]'
            )


def _stats(out: Path) -> list[dict[str, Any]]:
    store, folder = Store(str(out)), ImageShards.STATS
    return [store.read_json(f"{folder}/{name}") for name in store.names(folder, ".json")]


def _show(out: Path, reasons: Counter[str], log: StageLog) -> None:
    """The gallery, failures by reason and by host with samples of each, and sizes."""
    folder, failures = out / ImageShards.FOLDER, out / ImageShards.FAILURES
    log.table("sample", _sample(folder))
    hosts: Counter[tuple[str, str]] = Counter()
    samples: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in shard_names(failures):
        for row in read_table(failures / name, kind="failures").to_pylist():
            hosts[_host(row["origin"]), row["reason"]] += 1
            if len(samples[row["reason"]]) < _SAMPLES_OF_EACH:
                samples[row["reason"]].append(row)
    if reasons:
        ranked = reasons.most_common()
        log.table(
            "failures_by_reason",
            {"reason": [r for r, _ in ranked], "count": [n for _, n in ranked]},
        )
        worst = hosts.most_common(200)
        log.table(
            "failures_by_host",
            {
                "host": [h for (h, _), _ in worst],
                "reason": [r for (_, r), _ in worst],
                "count": [n for _, n in worst],
            },
        )
        shown = [row for rows in samples.values() for row in rows]
        columns = ("reason", "origin", "detail", "caption", "key")
        log.table("failure_samples", {c: [row[c] for row in shown] for c in columns})
    _show_sizes(folder, log)


def _show_sizes(folder: Path, log: StageLog) -> None:
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
    log.figure("sizes", figure)


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _sample(folder: Path) -> dict[str, list[object]]:
    rows: list[dict[str, Any]] = []
    for name in shard_names(folder):
        table = read_table(folder / name, ["key", "caption", "image"], ImageShards.SCHEMA)
        rows += table.slice(0, _SAMPLE - len(rows)).to_pylist()
        if len(rows) >= _SAMPLE:
            break
    return {
        "image": [decode(r["image"], any_size) for r in rows],
        "caption": [r["caption"] for r in rows],
        "key": [r["key"] for r in rows],
    }
