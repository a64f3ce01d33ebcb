"""A rehearsal's result in a file, which ``gill plan`` reads."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from data.io.atomic import write_json
from flows.config import PipelineConfig
from flows.overrides import ConfigError
from flows.recipes import resolve
from flows.rehearsal.estimate import Estimate, Measured, estimates
from flows.rehearsal.run import folder_of
from flows.rehearsal.sizes import REHEARSALS, Parts, Rehearsal, Splits
from flows.rehearsal.work import Scale
from gill.backbones.testing.published import ClipSize, DiffusionSize, OptSize
from tasks.runner.planning import StagePlan

_RECORD = "rehearsal.json"
Size = TypeVar("Size", OptSize, ClipSize, DiffusionSize)


def machine() -> dict[str, Any]:
    """Where it ran."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "torch": torch.__version__,
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(
    rehearsal: Rehearsal,
    measured: Mapping[str, Measured],
    scale: Scale,
    settings: Mapping[str, Any],
) -> None:
    """Keep what was measured and of what."""
    write_json(
        folder_of(rehearsal.recipe) / _RECORD,
        {
            "machine": machine(),
            "parts": asdict(scale.parts),
            "pairs": asdict(scale.splits),
            "overrides": {**rehearsal.overrides(folder_of(rehearsal.recipe)), **settings},
            "stages": {name: asdict(stage) for name, stage in measured.items()},
        },
    )


def with_rehearsed(
    plans: Sequence[StagePlan], recipe: str, config: PipelineConfig
) -> list[StagePlan]:
    """Plans in which stages that were never made have the figures of the last rehearsal."""
    if all(plan.seconds is not None or plan.status == "reuse" for plan in plans):
        return list(plans)
    known = planned(recipe, config) or {}
    return [
        replace(
            plan,
            seconds=made.seconds,
            bytes=round(made.bytes),
            host=made.host,
            gpu=made.gpu,
            rehearsed=True,
        )
        if plan.seconds is None and plan.status != "reuse" and (made := known.get(plan.stage))
        else plan
        for plan in plans
    ]


def planned(recipe: str, config: PipelineConfig) -> dict[str, Estimate] | None:
    """What the stages of a run would take by the last rehearsal of its recipe on this machine.

    Returns:
        None where there is none, or it was of other parts or of an earlier version.
    """
    rehearsal = next((made for name, made in REHEARSALS.items() if name == recipe), None)
    if rehearsal is None:
        return None
    usual = resolve(rehearsal.recipe, {})
    if config.parts.model_dump(include={"language", "vision"}) != usual.parts.model_dump(
        include={"language", "vision"}
    ):
        return None
    try:
        found = json.loads((folder_of(recipe) / _RECORD).read_text())
        measured = {name: Measured(**stage) for name, stage in found["stages"].items()}
        sizes = found["parts"]
        parts = Parts(
            _sized(OptSize, sizes["language"]),
            _sized(ClipSize, sizes["vision"]),
            _sized(DiffusionSize, sizes["generator"]),
        )
        scale = Scale(
            resolve(rehearsal.recipe, found["overrides"]), parts, Splits(**found["pairs"])
        )
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
    whole = Scale(config, rehearsal.published, limited(rehearsal.whole, config.download.limit))
    return estimates({n: m for n, m in measured.items() if hasattr(config, n)}, scale, whole)


def limited(splits: Splits, limit: int | None) -> Splits:
    """Splits of which at most so many pairs are taken."""
    if limit is None:
        return splits
    return Splits(*(min(limit, n) for n in (splits.train, splits.validation, splits.test)))


def _sized(kind: type[Size], values: Mapping[str, Any]) -> Size:
    """A part's sizes as they were written.

    Raises:
        TypeError: another version wrote them.
    """
    if {field.name for field in fields(kind)} != set(values):
        raise TypeError(f"{sorted(values)} are no fields of {kind.__name__}")
    own: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return kind(**own)
