"""Images that come more than once: found over all shards, told apart, kept or dropped.

A *url* duplicate is another row with the same address, a *content* duplicate another address with
the same bytes, and a *placeholder* bytes that many addresses send: the image that hosts put in
place of a lost one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.download.atomic_store import Store
from data.download.image_shards import FAILURES, IMAGES, STATS, write_failures, write_images

DUPLICATES = "duplicates.parquet"
# The same again: once rows are dropped, what was found cannot be found a second time.
COPY = "duplicates-copy.parquet"
SETTLED = {"duplicate", "placeholder"}  # reasons that another fetch does not change


def find_duplicates(store: Store, names: Sequence[str], placeholder_addresses: int) -> pa.Table:
    """Every image whose bytes stand in an earlier row too, and every placeholder.

    Reads three narrow columns; holds 8 bytes for each image and the rows of those that repeat.

    Args:
        placeholder_addresses: that many addresses with the same bytes make a placeholder.
    """
    fingerprints = [
        np.array([_mark(r["sha256"]) for r in _rows(store, n)], np.uint64) for n in names
    ]
    values, counts = np.unique(np.concatenate(fingerprints), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, mine in zip(names, fingerprints, strict=True):
        if not repeated.isdisjoint(mine.tolist()):
            for row in _rows(store, name):
                if _mark(row["sha256"]) in repeated:
                    groups[row["sha256"]].append((row["key"], row["origin"]))
    found = []
    for digest, rows in groups.items():
        addresses = [origin for _, origin in rows]
        placeholder = len(set(addresses)) >= placeholder_addresses
        for number, (key, origin) in enumerate(rows):
            kind = "url" if origin in addresses[:number] else "content"
            if placeholder or number:
                kind = "placeholder" if placeholder else kind
                found.append({"key": key, "first": rows[0][0], "sha256": digest, "kind": kind})
    return pa.Table.from_pylist(found, schema=schemas.DUPLICATES)


def settle_duplicates(
    store: Store, names: Sequence[str], placeholder_addresses: int, drop: Collection[str]
) -> pa.Table:
    """Record the duplicates of a folder and drop those of some kinds.

    What is found is written before anything is dropped, so a killed process goes on with the same
    decisions. A dropped row is a failure ``duplicate`` or ``placeholder`` afterwards.
    """
    kept = next((name for name in (DUPLICATES, COPY) if store.exists(name)), None)
    if kept is None:
        table = find_duplicates(store, names, placeholder_addresses)
    else:
        with store.open(kept) as handle:
            table = pq.read_table(handle)
    for name in (DUPLICATES, COPY):
        if not store.exists(name):
            store.write(name, lambda handle: write_failures(handle, table))
    doomed = {row["key"]: row for row in table.to_pylist() if row["kind"] in drop}
    if doomed:
        for name in names:
            _drop(store, name, doomed)
    return table


def _drop(store: Store, name: str, doomed: dict[str, dict[str, Any]]) -> None:
    images, failures = f"{IMAGES}/{name}.parquet", f"{FAILURES}/{name}.parquet"
    stats = store.read_json(f"{STATS}/{name}.json")
    with store.open(images) as handle:
        have = pq.read_table(handle, columns=["key"]).column("key").to_pylist()
        if doomed.keys().isdisjoint(have) and stats["good"] == len(have):
            return
        table = pq.read_table(handle)
    with store.open(failures) as handle:
        known = {f["key"]: f for f in pq.read_table(handle).to_pylist()}
    keep = [key not in doomed for key in table.column("key").to_pylist()]
    dropped = table.filter(pa.array([not k for k in keep])).drop_columns("image").to_pylist()
    for row in dropped:
        found = doomed[row["key"]]
        known[row["key"]] = {
            **{k: row[k] for k in ("key", "caption", "origin", "source")},
            "reason": "placeholder" if found["kind"] == "placeholder" else "duplicate",
            "detail": f"the bytes of {found['first']}",
            "retry_at": 0.0,
        }
    # Failures first: a row that is in both is dropped again, one that is in neither would be lost.
    rest = pa.Table.from_pylist([known[k] for k in sorted(known)], schema=schemas.FAILURES)
    store.write(failures, lambda h: write_failures(h, rest))
    left = table.filter(pa.array(keep))
    store.write(images, lambda h: write_images(h, left.to_batches(max_chunksize=256)))
    reasons = [f["reason"] for f in known.values()]
    stats |= {"good": len(left), "failures": {r: reasons.count(r) for r in sorted(set(reasons))}}
    stats["sha256"] = {}  # of what was fetched
    store.write_json(f"{STATS}/{name}.json", stats)


def _mark(digest: str) -> int:
    """64 bits of a digest; rows that share them are compared in full."""
    return int(digest[:16], 16)


def _rows(store: Store, name: str) -> Iterator[dict[str, str]]:
    with store.open(f"{IMAGES}/{name}.parquet") as handle:
        columns = ["key", "origin", "sha256"]
        yield from pq.read_table(handle, columns=columns).to_pylist()
