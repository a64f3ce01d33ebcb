"""The plan of a download: the shards of a list, and which rows repeat an address.

``prepare`` reads the list once: it counts the rows, finds those whose address stands in an earlier
one, and records what the folder is made from.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import schemas
from data.download.addresses import normalise
from data.download.atomic_store import Store
from data.download.fetch_errors import FetchError
from data.download.image_shards import STATS, Row, finished_shards, shard_name
from data.download.settings import FetchSettings
from data.sources.base import Pair, Rejected, Source

IDENTITY = "identity.json"


class IdentityError(ValueError):
    """A folder holds shards of another list or configuration."""


@dataclass(frozen=True)
class Plan:
    """The shards of a list: its splits with their rows, and the rows that repeat an address."""

    rows: dict[str, int]
    shard_size: int
    store: Store = field(repr=False)

    def shards(self, split: str) -> list[str]:
        """Names of the shards of a split."""
        return [shard_name(split, i) for i in range(-(-self.rows[split] // self.shard_size))]

    def unfinished(self, passes: int) -> list[str]:
        """Shards of all splits that have not had so many passes over their failures."""
        done = {
            name
            for name in finished_shards(self.store)
            if not passes or self.store.read_json(f"{STATS}/{name}.json")["passes"] >= passes
        }
        return [name for split in self.rows for name in self.shards(split) if name not in done]

    def repeats(self, split: str) -> pa.Table:
        """Rows that repeat an address, see ``schemas.REPEATS``."""
        with self.store.open(f"plan/{split}.parquet") as handle:
            return pq.read_table(handle)


def prepare(source: Source, settings: FetchSettings) -> Plan:
    """Read the list, or what an earlier process found in it, and remove what it left half done.

    For one process at a time; others that fill the same folder call ``planned``.

    Raises:
        IdentityError: the folder is of another list or configuration; says what differs.
        WriteError: the folder cannot be written.
    """
    store = Store(settings.store)
    identity = json.loads(
        json.dumps({"source": source.identity(), **settings.fingerprint_fields()})
    )
    if store.exists(IDENTITY):
        found = store.read_json(IDENTITY)
        differs = [
            f"{key}: {then!r} then, {now!r} now"
            for key, then, now in _differences(found["identity"], identity)
        ]
        if differs:
            raise IdentityError(
                f"{store.address} was begun with another list or configuration ("
                + "; ".join(differs)
                + "). Use another folder, or go back to what it was begun with."
            )
        store.sweep()
        if all(store.exists(f"plan/{split}.parquet") for split in found["rows"]):
            return Plan(found["rows"], settings.shard_size, store)
    rows = {split: _scan(source, split, store) for split in source.splits()}
    store.write_json(IDENTITY, {"identity": identity, "rows": rows})
    return Plan(rows, settings.shard_size, store)


def planned(settings: FetchSettings) -> Plan:
    """What ``prepare`` found, for the processes that share its work."""
    store = Store(settings.store)
    return Plan(store.read_json(IDENTITY)["rows"], settings.shard_size, store)


def _differences(then: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif then != now:
        yield key, then, now


def _scan(source: Source, split: str, store: Store) -> int:
    """Write the rows that repeat an address; return the number of rows.

    Addresses are compared by 64 bits of their hash: 8 bytes a row, and for CC3M's 3.3 million rows
    a chance of 3 in 10 million that any two differ and are taken for one.
    """
    hashes = np.fromiter(
        (_hash(p) if isinstance(p, Pair) else 2 * n for n, p in enumerate(source.pairs(split))),
        np.uint64,
    )
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    firsts = first[inverse]
    repeated = np.flatnonzero(firsts != np.arange(len(hashes)))
    wanted, found = set(repeated.tolist()), []
    if wanted:
        for number, pair in enumerate(source.pairs(split)):
            if number in wanted and isinstance(pair, Pair):
                found.append(
                    {
                        "row": number,
                        "first": int(firsts[number]),
                        **Row(pair.key, pair.caption, pair.origin, pair.source).texts(),
                    }
                )
    table = pa.Table.from_pylist(found, schema=schemas.REPEATS)
    store.write(f"plan/{split}.parquet", lambda h: pq.write_table(table, h, compression="zstd"))
    return len(hashes)


def _hash(pair: Pair) -> int:
    try:
        text = str(normalise(pair.origin))
    except FetchError:
        text = pair.origin
    # Odd, so that no address equals a row that cannot be read.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) | 1


def jobs(source: Source, plan: Plan, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The first fetch of some shards, in the order of the list, read once for each split."""
    wanted = set(names)
    for split in plan.rows:
        mine = [name for name in plan.shards(split) if name in wanted]
        if not mine:
            continue
        repeats = plan.repeats(split).to_pylist()
        moved = {r["row"] for r in repeats}
        joined: dict[int, list[dict[str, Any]]] = {}
        for repeat in repeats:
            joined.setdefault(repeat["first"] // plan.shard_size, []).append(repeat)
        stream = iter(enumerate(source.pairs(split)))
        for number, name in enumerate(plan.shards(split)):
            chunk = islice(stream, plan.shard_size)
            if name not in wanted:
                deque(chunk, maxlen=0)
                continue
            kept = [pair for row, pair in chunk if row not in moved]
            rows = [
                [p.key, p.caption, p.place, "", p.reason]
                if isinstance(p, Rejected)
                else [p.key, p.caption, p.origin, p.source, ""]
                for p in kept
            ]
            rows += [
                [r["key"], r["caption"], r["origin"], r["source"], ""]
                for r in joined.get(number, [])
            ]
            yield {"name": name, "passes": 0, "rows": rows}
            if name == mine[-1]:
                break
