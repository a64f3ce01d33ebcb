"""What would fail hours later, found before a run begins: nothing is fetched or computed for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from tasks.config.base import Config
from tasks.config.evaluation import EvaluateConfig
from tasks.config.parts import VisionConfig
from tasks.parts.checks import PartError, check_device, check_parts, check_vision
from tasks.paths import var_folder
from tasks.runner.dag import PlannedStage
from tasks.runner.room import LEAST_FREE, check_room
from tasks.runner.store import find


class SettingsError(ValueError):
    """A setting that names what is not there."""


def check_before(
    planned: Mapping[str, PlannedStage], only: str | None = None, force: Collection[str] = ()
) -> set[str]:
    """Refuse a run that cannot end well.

    Only stages that would run are looked at: what is finished needs nothing.

    Args:
        planned: the stages of the run. only: the one that is to run, or None for all.
        force: those that are made again although they are there.

    Returns:
        The frozen parts that the run will load.

    Raises:
        ValueError: a split, pair, file, part or device is missing; says which and what to do.
        DiskFullError: there is too little room to begin.
    """
    to_run = {
        name: stage
        for name, stage in planned.items()
        if only in (None, name) and (name in force or find(stage.artifact) is None)
    }
    if not to_run:
        return set()
    first = next(iter(to_run.values()))
    check_room(var_folder(), first.runtime.minimum_free_bytes, LEAST_FREE)
    if any(stage.stage.declared.computes for stage in to_run.values()):
        check_device(first.runtime)
    wanted = {part for stage in to_run.values() for part in stage.stage.declared.whole_parts}
    check_parts(first.parts, first.runtime, sorted(wanted))
    for name, stage in to_run.items():
        _check_config(name, stage.config)
    needed: dict[str, list[str]] = {}
    for name, stage in to_run.items():
        for split in stage.stage.declared.splits(stage.config):
            needed.setdefault(split, []).append(name)
    for stage in to_run.values():
        if stage.stage.declared.check is not None:
            stage.stage.declared.check(stage.config, needed)
    return {part for stage in to_run.values() for part in stage.stage.declared.parts}


def _check_config(name: str, config: Config) -> None:
    for key, value in _contents(config, name):
        path = Path(value)
        on_hub = ".metric_networks." in key and not path.is_absolute() and len(path.parts) == 3
        if not path.exists() and not on_hub:
            raise SettingsError(f"{key} is {value!r}, and there is nothing at that path")
    if getattr(config, "runner", "threads") == "ray" and find_spec("ray") is None:
        raise SettingsError(
            f"{name}.runner is 'ray' and ray is not installed; run pip install -e '.[ray]'"
        )
    if isinstance(config, EvaluateConfig) and (clip := config.metric_networks.clip):
        named = VisionConfig(name=clip)
        if ":" not in clip:
            architecture, slash, tag = clip.partition("/")
            if not slash:
                raise PartError(
                    f"evaluate.metric_networks.clip is {clip!r}; it must be model/pretraining, "
                    "such as ViT-L-14-quickgelu/openai"
                )
            named = VisionConfig(name=architecture, pretrained=tag)
        check_vision(named, "evaluate.metric_networks.clip")


def _contents(config: Config, prefix: str) -> Iterator[tuple[str, str]]:
    """The settings with the path of a file or folder, which are given."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _contents(value, f"{prefix}.{name}")
        elif type(config).marked(name, "contents") and value:
            yield f"{prefix}.{name}", value
