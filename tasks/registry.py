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
        code: the modules whose code bears on its result.
    """

    name: str
    version: int
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    model: str | None = None
    code: tuple[str, ...] = ()


_TRAIN = ("gill.training", "tasks.train", "data.shards")
_LLM = ("gill.backbones.language", "gill.model", "gill.packing", "gill.tokens", "gill.losses")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("download", 1, code=("data.sources",)),
        Stage("clip_features", 2, ("download",), ("vision",), code=("gill.backbones.vision",)),
        Stage(
            "text_targets",
            1,
            ("download",),
            ("generator",),
            code=("gill.backbones.image_generator",),
        ),
        Stage(
            "adapters",
            2,
            ("download", "clip_features"),
            ("language",),
            model="gill-adapters",
            code=(*_TRAIN, *_LLM, "gill.captioning", "gill.retrieval"),
        ),
        Stage(
            "mapper",
            2,
            ("text_targets", "adapters"),
            model="gill-mapper",
            code=(*_TRAIN, "gill.mapper", "gill.losses"),
        ),
        Stage("index", 1, ("clip_features", "adapters"), code=("gill.retrieval",)),
        Stage(
            "decision",
            3,
            ("download", "clip_features", "adapters", "mapper", "index"),
            ("language", "vision", "generator"),
            model="gill-decision",
            code=(
                "gill.training",
                "gill.decision",
                "gill.evaluation.choices",
                "tasks.answers",
                "tasks.ballots",
                "data.votes",
                "gill.search",
            ),
        ),
        Stage(
            "evaluate",
            3,
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
            code=(
                "gill.generation",
                "gill.decoding",
                "gill.prompts",
                "gill.search",
                "gill.evaluation.captioning",
                "gill.evaluation.choices",
                "gill.evaluation.pictures",
                "tasks.answers",
                "tasks.ballots",
                "tasks.contestants",
                "tasks.contexts",
                "tasks.judges",
                "data.contexts",
                "data.study",
                "data.visdial",
                "data.vist",
            ),
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


def ancestors(name: str) -> set[str]:
    """Every stage that a stage needs, directly or not."""
    found: set[str] = set()
    for need in stage_named(name).needs:
        found |= {need} | ancestors(need)
    return found
