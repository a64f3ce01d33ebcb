"""Finds the artifacts of a trained model: of a run, a folder or a stage's artifact."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from data.artifacts import Artifact, TrainedAdapters, TrainedMapper
from data.manifest import MANIFEST, DamagedArtifactError, problems_of
from gill.released_args import ARGS
from tasks.config.parts import (
    GeneratorConfig,
    LanguageConfig,
    PartConfig,
    PartsConfig,
    VisionConfig,
)
from tasks.paths import LAST_RUN, var_folder
from tasks.runner.registry import stage_named
from tasks.tracking import mlflow_runs

Kind = TypeVar("Kind", bound=Artifact)
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class LoadError(ValueError):
    """What was named holds no trained model; says what is missing and how to make it."""


def artifacts_of(source: str | Path | None) -> dict[str, Artifact]:
    """The artifacts of a source and all that they rest on."""
    path = var_folder() if source is None else Path(source)
    if (path / MANIFEST).exists():
        stage, root = path.parent.name, path.parents[1]
        found = _closure(root, {stage: path.name})
    elif (path / LAST_RUN).exists():
        found = _closure(path / "store", _stages_of(path / LAST_RUN))
    elif source is not None and _RUN_ID.fullmatch(str(source)):
        try:
            fingerprints = mlflow_runs.stages_of(str(source))
        except LookupError as error:
            raise LoadError(str(error)) from error
        found = _closure(var_folder() / "store", fingerprints)
    elif (path / ARGS).exists():
        raise LoadError(
            f"{path} is in the layout of the released checkpoints; put it into the store with "
            "`gill import` and name the artifact that it prints"
        )
    else:
        raise LoadError(
            f"{source or path} holds no run ({LAST_RUN}), no artifact ({MANIFEST}) and no released "
            f"checkpoint ({ARGS}), and is no MLflow run id; run the pipeline first"
        )
    wanted = {"adapters": TrainedAdapters, "mapper": TrainedMapper}
    missing = [name for name, kind in wanted.items() if of_kind(found, kind) is None]
    if missing:
        raise LoadError(
            f"{source or path} has no trained {' and no trained '.join(missing)}, only "
            f"{', '.join(found)}; run the stage {missing[-1]!r} first"
        )
    return found


def _stages_of(last_run: Path) -> dict[str, str]:
    """Fingerprints by stage of the last run."""
    try:
        stages = json.loads(last_run.read_bytes())["stages"]
        return {str(name): str(stage["fingerprint"]) for name, stage in stages.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise LoadError(
            f"cannot read {last_run}: {error}. Run the pipeline again (what is finished is "
            "reused), or name a run or an artifact"
        ) from error


def _closure(root: Path, fingerprints: Mapping[str, str]) -> dict[str, Artifact]:
    found: dict[str, Artifact] = {}
    wanted = dict(fingerprints)
    while wanted:
        stage, fingerprint = wanted.popitem()
        path = (root / stage / fingerprint).absolute()
        if not (path / MANIFEST).exists():
            raise LoadError(
                f"the artifact {stage}/{fingerprint} is not in {root}; run its stage again"
            )
        found[stage] = stage_named(stage).makes(stage, fingerprint, path)
        for need, its_fingerprint in _inputs(found[stage]):
            known = (
                found[need].fingerprint
                if need in found
                else wanted.setdefault(need, its_fingerprint)
            )
            if known != its_fingerprint:
                raise LoadError(
                    f"{stage} was made with {need}/{its_fingerprint}, not with {need}/{known}"
                )
    return found


def _inputs(artifact: Artifact) -> list[tuple[str, str]]:
    """Stage and fingerprint of each input; manifests of old name the stage in another place."""
    named = artifact.manifest().inputs.items()
    pairs = [(made.rpartition("/")[0] or name, made.rpartition("/")[2]) for name, made in named]
    return list(dict.fromkeys(pairs))


def of_kind(found: Mapping[str, Artifact], kind: type[Kind]) -> Kind | None:
    """The artifact of a kind, if there is one."""
    return next((artifact for artifact in found.values() if isinstance(artifact, kind)), None)


def check_whole(artifacts: Iterable[Artifact]) -> None:
    """See that artifacts are what their manifests say.

    Raises:
        DamagedArtifactError: the first that is not.
    """
    for artifact in artifacts:
        if problems := problems_of(artifact.path):
            raise DamagedArtifactError(artifact.stage, artifact.path, problems)


def check_made_with(found: Mapping[str, Artifact], parts: PartsConfig) -> None:
    """See that a model was trained with the frozen parts of a recipe.

    Raises:
        LoadError: it was trained with others; says which, and what to do.
    """
    made = recorded_parts(found)
    for kind in ("language", "vision", "generator"):
        ours, theirs = (_named(getattr(some, kind)) for some in (parts, made))
        if ours != theirs:
            raise LoadError(
                f"the model was trained with the {kind} part {theirs}, and this recipe has {ours}; "
                f"set parts.{kind} to that, or say with `gill import --recipe` that these are its "
                "parts under another name"
            )


def _named(part: PartConfig) -> str:
    pretrained = getattr(part, "pretrained", "")
    return f"{part.name}/{pretrained}" if pretrained else part.name


def recorded_parts(found: Mapping[str, Artifact]) -> PartsConfig:
    """The frozen parts, as the manifests say, or else the MLflow runs that made them."""
    recorded: dict[str, Any] = {}
    kinds: Mapping[str, type[PartConfig]] = {
        "language": LanguageConfig, "vision": VisionConfig, "generator": GeneratorConfig,
    }  # fmt: skip
    for artifact in found.values():
        made = artifact.manifest().provenance
        declared = set(stage_named(artifact.stage).declared.whole_parts)
        # What was imported says all of its parts.
        for name in (declared | set(made.get("parts", {}))) - set(recorded):
            try:
                described = made.get("parts", {}).get(name)
                recorded[name] = described or kinds[name].model_validate_strings(
                    mlflow_runs.params_of(str(made.get("mlflow_run_id")), name)
                )
            except LookupError as error:
                raise LoadError(
                    f"{artifact.path} does not say which {name} part it was made with, and neither "
                    f"does MLflow ({error}); give `parts`"
                ) from error
    return PartsConfig.model_validate(recorded)
