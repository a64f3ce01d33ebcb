"""Runs a rehearsal: stand-ins and pairs, then every stage of the recipe, one after the other."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flows.overrides import ConfigError
from flows.rehearsal.estimate import Measured
from flows.rehearsal.sizes import Rehearsal
from flows.rehearsal.work import Scale
from tasks.paths import var_folder

Say = Callable[[str], None]
STAND_INS = "stand-ins"
# Seconds on two quiet cores, for the time that is left; what was measured scales them.
_USUAL = {
    STAND_INS: 160.0,
    "trial of the parts": 40.0,
    "download": 10.0,
    "clip_features": 40.0,
    "text_targets": 50.0,
    "adapters": 180.0,
    "joint": 200.0,
    "imported": 30.0,
    "mapper": 40.0,
    "index": 10.0,
    "decision": 90.0,
    "evaluate": 90.0,
}


class TimeLeft:
    """Says before each part of a rehearsal how long it and all that follows take.

    Args:
        todo: the parts in their order.
    """

    def __init__(self, todo: list[str], say: Say) -> None:
        self.todo, self.say = todo, say
        self.took = self.usual = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Tell of one part and count its time."""
        at = self.todo.index(name)
        pace = self.took / self.usual if self.usual else 1.0
        own, left = (pace * sum(map(self._usual, part)) for part in ([name], self.todo[at:]))
        said = f"about {own:.0f} s, {left / 60:.0f} min for all that is left"
        self.say(f"[{at + 1}/{len(self.todo)}] {name}: {said}")
        began = time.monotonic()
        yield
        if name != STAND_INS:  # they may have been there
            self.took += time.monotonic() - began
            self.usual += self._usual(name)

    @staticmethod
    def _usual(name: str) -> float:
        return _USUAL.get(name, 60.0)


def folder_of(recipe: str) -> Path:
    """Where everything of a recipe's rehearsal lies."""
    return var_folder() / "rehearsal" / recipe


def rehearse(
    rehearsal: Rehearsal, settings: Mapping[str, Any], force: bool, say: Say
) -> tuple[dict[str, Measured], Scale]:
    """Run every stage of a recipe on stand-ins; finished stages are not run again.

    Args:
        settings: overrides of the user, over those of the rehearsal. force: run all stages anew.

    Returns:
        What each stage took, and what was run.

    Raises:
        ConfigError, DiskFullError, ValueError: as ``gill run`` does.
    """
    from flows.local.environment import private_folder
    from flows.recipes import resolve

    folder = private_folder(folder_of(rehearsal.recipe))
    overrides = {**rehearsal.overrides(folder), **settings}
    config = resolve(rehearsal.recipe, overrides)
    with _alone_in(folder):
        return _in_folder(rehearsal, overrides, config, folder, force, say)


def _in_folder(
    rehearsal: Rehearsal,
    overrides: dict[str, Any],
    config: Any,
    folder: Path,
    force: bool,
    say: Say,
) -> tuple[dict[str, Measured], Scale]:
    from flows.checks import check_run
    from flows.local.temporary import own_server
    from flows.pipeline import dag, gill
    from flows.rehearsal.pairs import make_pairs
    from flows.rehearsal.stand_ins import make_stand_ins
    from tasks.runner.dag import plan
    from tasks.runner.store import find

    stages = dag(config.schedule)
    left = TimeLeft([STAND_INS, "trial of the parts", *stages.stages], say)
    with left.part(STAND_INS):
        make_stand_ins(rehearsal.parts, folder, say)
        make_pairs(rehearsal.pairs, folder)
    for unfinished in folder.glob("store/*/*.partial"):
        shutil.rmtree(unfinished)  # a stage that goes on tells half of what it takes
    planned = plan(stages, config)
    if force or any(find(stage.artifact) is None for stage in planned.values()):
        with left.part("trial of the parts"):
            check_run(config, None, force)
        with own_server():
            for name in stages.stages:
                with left.part(name):
                    gill(rehearsal.recipe, overrides, stage=name, force=force)
    measured = {name: Measured.of(stage.artifact.manifest()) for name, stage in planned.items()}
    return measured, Scale(config, rehearsal.parts, rehearsal.pairs)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let all that runs write into a folder of its own, and reach no network.

    Raises:
        ConfigError: another process rehearses there.
    """
    lock = FileLock(folder / "rehearsal.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"another rehearsal is running in {folder}; wait for its end") from error
    own = {"GILL_VAR": str(folder), "HF_HUB_OFFLINE": "1", "MLFLOW_TRACKING_URI": ""}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        lock.release()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
