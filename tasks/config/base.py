"""The base of every configuration, and what of it goes into fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.io import identity
from gill.settings import ComponentSettings, setting

EMBEDDED = "chosen on the embedded recipe (docs/experiments.md)"


class Config(ComponentSettings):
    """Base of every configuration."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that bear on the result."""
        unfingerprinted = {n for n in type(self).model_fields if self._marked(n, "unfingerprinted")}
        values = self.model_dump(mode="json", exclude=unfingerprinted)
        for name in values:
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.fingerprint_fields()
            elif self._marked(name, "contents") and value:
                values[name] = content_digest(Path(value))
        return values

    @classmethod
    def _marked(cls, name: str, mark: str) -> bool:
        extra = cls.model_fields[name].json_schema_extra
        return isinstance(extra, dict) and bool(extra.get(mark))


def unfingerprinted(default: Any, description: str, **declared: Any) -> Any:
    """A setting that says how or where something runs and not what comes out."""
    return setting(default, description, extra={"unfingerprinted": True}, **declared)


def contents(description: str) -> Any:
    """A setting with the path of a file or folder: what it holds bears on the result."""
    return setting("", description, unit="path", source="none", extra={"contents": True})


def content_digest(path: Path) -> str:
    """Digest of what a file or folder holds; the path where there is nothing."""
    return identity.content_digest(path) if path.exists() else str(path)
