"""The names of the stages: files in ``tasks/stages``. Nothing is imported to know them."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "stages"


def stage_names() -> tuple[str, ...]:
    """Names of all stages in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("[!_]*.py")))


def check_stage(name: str) -> None:
    """Refuse a stage that does not exist.

    Raises:
        ValueError: names the nearest and all there are.
    """
    if name not in stage_names():
        near = get_close_matches(name, stage_names(), n=1, cutoff=0.0)
        raise ValueError(
            f"unknown stage {name!r}; did you mean {near[0]!r}? Stages: {', '.join(stage_names())}"
        )
