"""Names of the recipes, apart from what they stand for: the command offers them at once."""

from __future__ import annotations

from typing import Literal, get_args

RecipeName = Literal["embedded", "tiny", "opt-6.7b"]
RECIPE_NAMES: tuple[RecipeName, ...] = get_args(RecipeName)
