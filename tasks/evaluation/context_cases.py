"""The stories and dialogues of the suites in which an image is made from a long context."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.artifacts import ImageShards
from data.benchmarks.contexts import Cases, ContextError
from data.benchmarks.synthetic_contexts import Described, described, dialogues, stories
from data.benchmarks.visdial import read_visdial
from data.benchmarks.vist import read_vist
from tasks.config.evaluation import ContextsConfig, EvaluateConfig
from tasks.tracking.stage_log import StageLog


def read_cases(config: EvaluateConfig, images: ImageShards, log: StageLog) -> dict[str, Cases]:
    """The cases of the suites that a recipe names.

    Args:
        images: what synthetic contexts are made of.

    Raises:
        ContextError: a suite has no usable case, or its files are not given.
    """
    chosen = config.contexts
    cases: dict[str, Cases] = {}
    if "synthetic_contexts" in config.suites:
        known, skipped = described_images(images)
        for name, make in (("synthetic_story", stories), ("synthetic_dialogue", dialogues)):
            made = make(known, chosen.cases)
            both = dict(Counter(made.skipped) + skipped)
            cases[name] = Cases(made.cases, both, made.samples)
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


def described_images(images: ImageShards) -> tuple[list[Described], Counter[str]]:
    """The images of the test split with the attributes in their captions."""
    known: list[Described] = []
    skipped: Counter[str] = Counter()
    for name in images.names("test"):
        for row in images.read(name, ["key", "caption", "image"]).to_pylist():
            item = described(row["key"], row["caption"], row["image"])
            if isinstance(item, str):
                skipped[item] += 1
            else:
                known.append(item)
    return known, skipped


def _given(config: ContextsConfig, *names: str) -> tuple[Path, Path]:
    paths = [str(getattr(config, name)) for name in names]
    missing = [f"evaluate.contexts.{n}" for n, p in zip(names, paths, strict=True) if not p]
    if missing:
        raise ContextError(f"{' and '.join(missing)} must name the files of this suite")
    return Path(paths[0]), Path(paths[1])
