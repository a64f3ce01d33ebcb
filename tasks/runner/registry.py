"""What stages there are: their needs, the parts they use, and the version of their code.

Raise a stage's version when its code changes what comes out: artifacts of the old version are then
no longer reused. ``tests/tasks/test_versions.py`` notices changed code and asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class Stage:
    """A node of the DAG; its code is ``run`` in the module ``tasks.<name>``.

    Attributes:
        needs: the stages whose artifacts it takes, in the order of its inputs.
        parts: the frozen parts whose weights bear on its result.
        model: the name under which its weights are registered in MLflow.
        workers: whether ``runtime.workers`` processes can run it together.
    """

    name: str
    version: int
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    model: str | None = None
    workers: bool = False

    @property
    def whole_parts(self) -> tuple[str, ...]:
        """The parts as a recipe has them: the text encoder is one of the generator's."""
        return tuple("generator" if part == "text_encoder" else part for part in self.parts)

    @property
    def computes(self) -> bool:
        """Whether it trains or uses frozen parts, and so is worth a process of its own."""
        return self.workers or bool(self.parts)


# Which stage makes what others need as ``adapters`` and ``mapper``, where it has another name.
SCHEDULES: dict[str, dict[str, str]] = {
    "staged": {},
    "joint": {"adapters": "joint", "mapper": "joint"},
}


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "download",
            2,
        ),
        Stage("clip_features", 3, ("download",), ("vision",)),
        Stage(
            "text_targets",
            2,
            ("download",),
            ("text_encoder",),
        ),
        Stage(
            "adapters",
            6,
            ("download", "clip_features"),
            ("language",),
            model="gill-adapters",
            workers=True,
        ),
        Stage(
            "mapper",
            2,
            ("text_targets", "adapters"),
            model="gill-mapper",
            workers=True,
        ),
        Stage("index", 1, ("clip_features", "adapters")),
        Stage(
            "decision",
            3,
            ("download", "clip_features", "adapters", "mapper", "index"),
            ("language", "vision", "generator"),
            model="gill-decision",
        ),
        Stage(
            "evaluate",
            4,
            (
                "download",
                "clip_features",
                "text_targets",
                "adapters",
                "mapper",
                "index",
                "decision",
            ),
            ("language", "vision", "generator"),
        ),
        Stage(
            "joint",
            5,
            ("download", "clip_features", "text_targets"),
            ("language",),
            model="gill-joint",
            workers=True,
        ),
    )
}


def stage_named(name: str) -> Stage:
    """Look a stage up.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name not in STAGES:
        near = get_close_matches(name, STAGES, n=1, cutoff=0.0)
        raise ValueError(
            f"unknown stage {name!r}; did you mean {near[0]!r}? Stages: {', '.join(STAGES)}"
        )
    return STAGES[name]


def stages_of(schedule: str) -> list[str]:
    """The stages that a schedule runs."""
    made = SCHEDULES[schedule]
    unused = set(made) | {maker for s in SCHEDULES.values() for maker in s.values()}
    return [name for name in STAGES if name not in unused - set(made.values())]


def ancestors(name: str, schedule: str = "staged") -> set[str]:
    """Every stage that a stage needs under a schedule, directly or not."""
    found: set[str] = set()
    for need in stage_named(name).needs:
        maker = SCHEDULES[schedule].get(need, need)
        found |= {maker} | ancestors(maker, schedule)
    return found
