"""Flat overrides of a configuration: read from text, and checked against the keys there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from flows.names import RECIPE_NAMES

RENAMED_KEYS = {
    "adapters.start_prompt": "adapters.initial_prompt",
    "evaluate.judges.clip": "evaluate.metric_networks.clip",
    "evaluate.judges.fid": "evaluate.metric_networks.fid",
    "evaluate.judges.lpips": "evaluate.metric_networks.lpips",
    "evaluate.judges.perceptual": "evaluate.metric_networks.perceptual",
    "evaluate.picture_seeds": "evaluate.image_seeds",
    "evaluate.pictures": "evaluate.images",
    "mapper.start": "mapper.initialization",
    "runtime.ranks": "runtime.workers",
}
RENAMED_VALUES = {
    ("evaluate.suites", "study"): "synthetic_contexts",
    ("mapper.initialization", "fitted"): "data_dependent",
}


class ConfigError(ValueError):
    """A recipe, a stage, a key or a value that does not exist or does not fit."""


def check_recipe(name: str) -> None:
    """Refuse a recipe that does not exist.

    Raises:
        ConfigError: names the nearest and all there are.
    """
    if name not in RECIPE_NAMES:
        near = get_close_matches(name, RECIPE_NAMES, n=1, cutoff=0.0)
        raise ConfigError(
            f"unknown recipe {name!r}; did you mean {near[0]!r}? Recipes: {', '.join(RECIPE_NAMES)}"
        )


def parsed(settings: Sequence[str]) -> dict[str, Any]:
    """Overrides from texts such as ``mapper.learning_rate=5e-4``; values are JSON or plain words.

    Raises:
        ConfigError: a text has no ``=``, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"{text!r} is no setting; write it as mapper.learning_rate=5e-4")
        if key in found:
            raise ConfigError(f"{key!r} is given twice, with {found[key]!r} and {value!r}")
        try:
            found[key] = json.loads(value, object_pairs_hook=_once_each)
        except ConfigError:
            raise
        except (ValueError, RecursionError):  # plain words; or numbers and lists beyond all bounds
            found[key] = value
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ConfigError(f"{[key for key, _ in pairs]} names one key twice")
    return found


def check_override(key: str, value: Any, known: Sequence[str], sections: Sequence[str]) -> None:
    """Refuse a key that there is not, and a value that has another name today.

    Raises:
        ConfigError: names the new key or value, or the nearest keys.
    """
    if key in RENAMED_KEYS:
        raise ConfigError(f"the key {key!r} is called {RENAMED_KEYS[key]!r} now")
    if key not in known:
        near = get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ConfigError(
            f"unknown key {key!r}{hint} Keys begin with one of: {', '.join(sections)}; "
            "`gill config --search WORD` finds them"
        )
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str) and (key, item) in RENAMED_VALUES:
            raise ConfigError(f"{item!r} of {key!r} is called {RENAMED_VALUES[key, item]!r} now")
