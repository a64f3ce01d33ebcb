"""What a run would do, and why: found from manifests, without loading a model or doing any work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.artifacts import ShardedArtifact
from data.manifest import Manifest
from tasks.runner.backfill import converted_by, count_new, made_of
from tasks.runner.dag import PlannedStage, identity_of
from tasks.runner.room import check_room
from tasks.runner.store import find, finished, store_folder
from tasks.tracking import memory

Status = Literal["reuse", "resume", "run"]
NEVER = "never made"
_INPUT = "input "


@dataclass(frozen=True)
class StagePlan:
    """What would become of one stage.

    Attributes:
        reasons: why it is not reused: each key, input or part that changed, from what to what.
        unfinished: what an earlier process left, such as ``3 shards, 12 MB``.
        shards: how many of its shards no artifact has, such as ``2 of 100 shards new``, for a stage
            that converts shard by shard.
        seconds: what it took the last time, for as many shards as are new now; None where it was
            never made. bytes: of all that it makes.
        held: bytes that unfinished work has already. new: share of its shards that are to be made.
        host, gpu: the most bytes of memory that it held then, where that is known.
        rehearsed: whether these figures are a rehearsal's.
    """

    stage: str
    fingerprint: str
    status: Status
    reasons: tuple[str, ...] = ()
    unfinished: str = ""
    shards: str = ""
    seconds: float | None = None
    bytes: int | None = None
    host: float | None = None
    gpu: float | None = None
    rehearsed: bool = False
    held: int = 0
    new: float = 1.0

    @property
    def wanted(self) -> int:
        """Bytes that are yet to be written, as far as that is known."""
        whole = 0 if self.bytes is None or self.status == "reuse" else self.bytes
        return max(0, min(math.ceil(whole * self.new), whole - self.held))


def explain(planned: Mapping[str, PlannedStage], forced: bool = False) -> list[StagePlan]:
    """Plan each stage, in the order of the DAG.

    Args:
        forced: whether finished stages are to be made again.
    """
    found: dict[str, StagePlan] = {}
    for name, stage in planned.items():
        found[name] = _explain(stage, found, forced)
    return list(found.values())


def _explain(planned: PlannedStage, before: Mapping[str, StagePlan], forced: bool) -> StagePlan:
    name, artifact = planned.stage.name, planned.artifact
    earlier = list(finished(name).values())
    reasons: tuple[str, ...]
    nearest: Manifest | None
    own = [m for m in earlier if m.fingerprint == artifact.fingerprint]
    if own and find(artifact) is not None and not forced:
        return StagePlan(name, artifact.fingerprint, "reuse", bytes=_size(own[0]))
    if own:
        reasons, nearest = ("it is to be made again (--force)",), own[0]
    elif earlier:
        reasons, nearest = min(
            ((_changes(planned, m), m) for m in earlier), key=lambda pair: len(pair[0])
        )
        reasons = _with_causes(reasons, planned, before)
    else:
        reasons, nearest = (NEVER,), None
    partial = artifact.path.with_name(f"{artifact.fingerprint}.partial")
    peaks = {} if nearest is None else nearest.provenance.get("measured", {})
    new, shards = (0, 0) if forced else _new_shards(planned)
    return StagePlan(
        name,
        artifact.fingerprint,
        "resume" if partial.exists() else "run",
        reasons,
        _unfinished(partial) if partial.exists() else "",
        f"{new} of {shards} shards new" if shards else "",
        None if nearest is None else _seconds(planned, [nearest, *earlier], new, shards),
        None if nearest is None else round(_size(nearest) * _grown(planned, nearest, shards)),
        peaks.get(memory.HOST),
        peaks.get(memory.GPU),
        held=0 if forced else sum(path.stat().st_size for path in _files(partial)),
        new=new / shards if shards else 1.0,
    )


def _new_shards(planned: PlannedStage) -> tuple[int, int]:
    """How many shards of how many are to be made; 0 of 0 where its input is not there to tell."""
    makes = planned.stage.makes
    images = converted_by(planned.config, makes, planned.inputs)
    if images is None or find(images) is None or not issubclass(makes, ShardedArtifact):
        return 0, 0
    wanted = made_of(identity_of(planned), images, makes.FOLDER, images.names())
    return count_new(wanted, list(finished(planned.stage.name))), len(wanted)


def _seconds(planned: PlannedStage, earlier: Sequence[Manifest], new: int, of: int) -> float:
    """What a stage took, the likest first; for so many new shards, at the rate of rows it had.

    Its other work, such as loading a part, takes as long for one shard as for all.
    """
    makes, then = planned.stage.makes, earlier[0]
    # One that was made of links alone had no rate.
    measured = [m for m in earlier if m.metrics.get("rows_per_second")]
    if not of or not measured or not issubclass(makes, ShardedArtifact):
        return float(then.provenance.get("seconds", 0.0))
    then = measured[0]
    shards = _shards_of(then, makes)
    a_shard = then.metrics["rows"] / max(1, shards) / then.metrics["rows_per_second"]
    made = shards - then.metrics.get("shards_resumed", 0.0)
    other = float(then.provenance.get("seconds", 0.0)) - made * a_shard
    return max(0.0, other) + new * a_shard


def _grown(planned: PlannedStage, then: Manifest, shards: int) -> float:
    """How many times the shards of an earlier artifact there are to be, where that is known."""
    makes = planned.stage.makes
    if not shards or not issubclass(makes, ShardedArtifact):
        return 1.0
    return shards / max(1, _shards_of(then, makes))


def _shards_of(manifest: Manifest, makes: type[ShardedArtifact]) -> int:
    return sum(name.startswith(f"{makes.FOLDER}/") for name in manifest.files)


def _changes(planned: PlannedStage, then: Manifest) -> tuple[str, ...]:
    """What differs between a stage and an artifact of it."""
    name, declared = planned.stage.name, planned.stage.declared
    found = []
    if then.version != declared.version:
        found.append(f"version of the stage: {then.version} -> {declared.version}")
    now = _flat(planned.config.fingerprint_fields(), name)
    old = {k: v for k, v in _flat(then.config, name).items() if k in now}
    shown = _flat(planned.config.model_dump(mode="json"), name)
    for key, value in shown.items():
        if key in now and (key not in old or old[key] != value):
            found.append(f"{key}: {old.get(key, 'not there')!r} -> {value!r}")
    known = then.provenance.get("parts", {})
    for part, whole in zip(declared.parts, declared.whole_parts, strict=True):
        before = _flat(known.get(whole) or {}, f"parts.{whole}")
        said = _flat(getattr(planned.parts, part).fingerprint_fields(), f"parts.{whole}")
        for key, value in said.items():
            if before.get(key) != value:
                found.append(f"{key}: {before.get(key)!r} -> {value!r}")
    for parameter, artifact in planned.inputs.items():
        wanted = f"{artifact.stage}/{artifact.fingerprint}"
        if then.inputs.get(parameter) != wanted:
            found.append(f"{_INPUT}{parameter}")
    return tuple(found) or ("what its files hold: those of the source, of a part or of a setting",)


def _with_causes(
    reasons: tuple[str, ...], planned: PlannedStage, before: Mapping[str, StagePlan]
) -> tuple[str, ...]:
    """Say of changed inputs which are made anew, and which are other finished artifacts."""
    own = [reason for reason in reasons if not reason.startswith(_INPUT)]
    makers = [planned.inputs[r.removeprefix(_INPUT)].stage for r in reasons if r not in own]
    anew = [maker for maker in makers if before[maker].status != "reuse"]
    others = [maker for maker in makers if maker not in anew]
    own += [f"made anew before it: {', '.join(dict.fromkeys(anew))}"] if anew else []
    own += [f"another finished {', '.join(dict.fromkeys(others))}"] if others else []
    return tuple(own)


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, name)
        else:
            found[name] = value
    return found


def _size(manifest: Manifest) -> int:
    return sum(int(file["bytes"]) for file in manifest.files.values())


def _unfinished(partial: Path) -> str:
    files = _files(partial)
    shards = len({path.name for path in files if path.suffix == ".parquet"})  # each in all folders
    steps = [int(p.stem.rpartition("-")[2]) for p in partial.glob("*checkpoint-*.pt")]
    said = [f"{shards} shards"] if shards else []
    said += [f"step {max(steps)}"] if steps else []
    return ", ".join([*said, f"{sum(p.stat().st_size for p in files) / 1e6:.1f} MB"])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def check_room_to_make(plans: list[StagePlan]) -> None:
    """See that the disk of the store has room for what is to be made, as far as that is known.

    What unfinished work holds and what is linked from other artifacts is there already.

    Raises:
        DiskFullError: it plainly has not.
    """
    wanted = sum(plan.wanted for plan in plans)
    check_room(store_folder(), wanted, "what is to be made, as far as earlier work tells")


class MemoryShortError(OSError):
    """The machine has less memory than a stage of the plan holds."""


def check_memory_to_hold(plans: Sequence[StagePlan], there: float) -> None:
    """See that the host has the memory that each stage to be made held the last time.

    Args:
        there: bytes of memory that the machine has.

    Raises:
        MemoryShortError: it has not; says which stage holds most.
    """
    made = [plan for plan in plans if plan.status != "reuse" and plan.host is not None]
    most = max(made, key=lambda plan: plan.host or 0.0, default=None)
    if most is not None and (most.host or 0.0) > there:
        raise MemoryShortError(
            f"{most.stage} holds {(most.host or 0.0) / 1e9:.1f} GB, as earlier work tells, and "
            f"this machine has {there / 1e9:.1f} GB of memory; lower the stage's batch size, or "
            "run it on a larger machine"
        )
