"""What ``benchmarks.endurance`` damages, how, and how it compares the artifacts of two runs."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

# Files of finished artifacts: every kind that the stages write.
FINISHED = (
    "download/*/images/*.parquet", "download/*/failures/*.parquet", "download/*/stats/*.json",
    "download/*/stats.json", "download/*/duplicates.parquet", "download/*/duplicates-copy.parquet",
    "download/*/manifest.json", "clip_features/*/features/*.parquet",
    "clip_features/*/manifest.json", "text_targets/*/targets/*.parquet",
    "text_targets/*/manifest.json", "adapters/*/adapters.safetensors", "adapters/*/adapters.json",
    "adapters/*/states/*.parquet", "adapters/*/manifest.json", "mapper/*/gill.safetensors",
    "mapper/*/gill.json", "mapper/*/manifest.json", "index/*/embeddings/*.parquet",
    "index/*/manifest.json", "decision/*/decision.safetensors", "decision/*/decision.json",
    "decision/*/labels.json", "decision/*/decision_scores.json", "decision/*/scores/*.parquet",
    "decision/*/manifest.json", "evaluate/*/report.html", "evaluate/*/report.md",
    "evaluate/*/metrics.json", "evaluate/*/captions.json", "evaluate/*/images/*.parquet",
    "evaluate/*/manifest.json", "download/*/.journal/*.jsonl", "adapters/*/.journal/*.jsonl",
)  # fmt: skip
# Files of unfinished work, as it is when a run is killed once such a file is there.
UNFINISHED = (
    "download/*.partial/images/train-00000.parquet",
    "download/*.partial/failures/train-00000.parquet",
    "download/*.partial/stats/train-00001.json",
    "clip_features/*.partial/features/train-00000.parquet",
    "text_targets/*.partial/targets/train-00001.parquet",
    "adapters/*.partial/checkpoint-*.pt", "adapters/*.partial/refine_checkpoint-*.pt",
    "adapters/*.partial/states/*.parquet", "mapper/*.partial/checkpoint-*.pt",
    "decision/*.partial/scores/*.parquet", "decision/*.partial/*checkpoint-*.pt",
    "evaluate/*.partial/images/*.parquet", "adapters/*.partial/.journal/*.jsonl",
)  # fmt: skip
DAMAGES = ("deleted", "flipped", "cut", "emptied", "swapped", "zeroed", "grown", "alien")
_OF_THE_MOMENT = ("seconds", "finished", "made_by", "bytes_fetched")


def damage(store: Path, place: str, kind: str, chance: random.Random) -> str | None:
    """Damage a file at a place; returns its name, or None where there is none."""
    found = sorted(p for p in store.glob(place) if ".partial" in place or ".partial" not in str(p))
    if not found:
        return None
    path = chance.choice(found)
    data = bytearray(path.read_bytes())
    others = [p for p in found if p != path and p.read_bytes() != bytes(data)]
    if kind == "deleted":
        path.unlink()
    elif kind == "alien" and path.suffix == ".parquet":
        shutil.copy(path, path.with_name(f"{path.stem.rpartition('-')[0]}-00099.parquet"))
    elif kind == "swapped" and others:
        other = chance.choice(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif kind == "grown":
        path.write_bytes(data + b"\0" * chance.randrange(1, 99))
    elif kind == "zeroed":
        start = chance.randrange(len(data))
        hole = bytes(min(512, len(data) - start))
        changed = data[:start] + hole + data[start + len(hole) :]
        path.write_bytes(changed if changed != data else data[:-1])
    else:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    return path.relative_to(store).as_posix()


def contents_of(store: Path) -> dict[str, str]:
    """A digest of what each file of a store's finished artifacts holds.

    Of tables it is that of their rows, and of JSON that of its values without those that say when
    and how fast; manifests count by their metrics of results and the names of their files.
    """
    found = {}
    for folder in sorted(p for p in store.glob("*/*") if p.is_dir() and not p.suffix):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(store).as_posix()
            if path.is_file() and ".journal" not in name:
                found[name] = hashlib.sha256(_held(path)).hexdigest()
    return found


def _held(path: Path) -> bytes:
    if path.name == "manifest.json":
        made = json.loads(path.read_bytes())
        metrics = {k: v for k, v in made["metrics"].items() if not _of_the_moment(k)}
        return repr([made["fingerprint"], sorted(metrics.items()), sorted(made["files"])]).encode()
    if path.suffix == ".parquet":
        return repr(pq.read_table(path).to_pydict()).encode()
    if path.suffix == ".json":
        return repr(_timeless(json.loads(path.read_bytes()))).encode()
    return path.read_bytes()


def _of_the_moment(name: str) -> bool:
    return name in _OF_THE_MOMENT or name.endswith(("per_second", "shards_resumed", "bytes"))


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not _of_the_moment(str(k))}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of files that one of two runs lacks or that hold something else."""
    names = sorted({*expected, *found})
    return [name for name in names if expected.get(name) != found.get(name)]
