"""The fingerprint of an artifact: a hash of everything that bears on what a stage makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from data.io.identity import remember_in
from tasks.config.base import Config
from tasks.config.parts import PartsConfig
from tasks.parts.identity import identity
from tasks.paths import var_folder
from tasks.runner.stage import Stage


def stage_fingerprint(
    stage: Stage, config: Config, parts: PartsConfig, inputs: Mapping[str, str]
) -> str:
    """Hash of a stage, its version and configuration, its frozen parts' weights and its inputs.

    Args:
        inputs: fingerprints of the artifacts it takes, by parameter.
    """
    remember_in(var_folder() / "digests.json")
    declared = stage.declared
    described = {
        "stage": stage.name,
        "version": declared.version,
        "config": config.fingerprint_fields(),
        "inputs": dict(inputs),
        "parts": {name: identity(name, getattr(parts, name)) for name in declared.parts},
    }
    if declared.identify is not None:
        described |= declared.identify(config)
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
