"""The stories and dialogues of the suites in which an image is made from a long context."""

from __future__ import annotations

from pathlib import Path

from data.benchmarks.contexts import Cases, ContextError
from data.benchmarks.synthetic_contexts import dialogues, shown_stories, told_stories
from data.benchmarks.visdial import read_visdial
from data.benchmarks.vist import read_vist
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.tracking.stage_log import StageLog


def read_cases(config: EvaluateConfig, log: StageLog) -> dict[str, Cases]:
    """The cases of the suites that a recipe names.

    Raises:
        ContextError: a suite has no usable case, or its files are not given.
    """
    chosen = config.contexts
    cases: dict[str, Cases] = {}
    if "synthetic_contexts" in config.suites:
        cases["told_story"] = told_stories(chosen.cases)
        cases["shown_story"] = shown_stories(chosen.cases)
        cases["told_dialogue"] = dialogues(chosen.cases, chosen.rounds)
    if "vist" in config.suites:
        paths = _given(chosen, "vist_stories", "vist_images")
        cases["vist"] = read_vist(*paths, chosen.cases)
    if "visdial" in config.suites:
        paths = _given(chosen, "visdial_dialogues", "visdial_images")
        cases["visdial"] = read_visdial(*paths, chosen.rounds, chosen.cases)
    for name, made in cases.items():
        log.note(f"{name}: {len(made.cases)} cases, skipped {dict(made.skipped) or 'none'}")
        if made.samples:
            columns = ("reason", "place", "detail")
            shown = {c: [getattr(s, c) for s in made.samples] for c in columns}
            log.table(f"skipped_{name}", shown)
        if not made.cases:
            raise ContextError(
                f"{name} has no usable case ({dict(made.skipped)}); give files with stories whose "
                "images are there, or leave the suite out of evaluate.suites"
            )
    return cases


def _given(config: ContextsConfig, *names: str) -> tuple[Path, Path]:
    paths = [str(getattr(config, name)) for name in names]
    missing = [f"evaluate.contexts.{n}" for n, p in zip(names, paths, strict=True) if not p]
    if missing:
        raise ContextError(f"{' and '.join(missing)} must name the files of this suite")
    return Path(paths[0]), Path(paths[1])
