"""The base of every configuration, and what of it goes into fingerprints."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.artifacts import sha256_of

Precision = Literal["float32", "bfloat16", "float16"]


class Config(BaseModel):
    """Base of every configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def fingerprint_fields(self) -> dict[str, Any]:
        """The fields that bear on the result."""
        unfingerprinted = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict)
            and field.json_schema_extra.get("unfingerprinted")
        }
        values = self.model_dump(mode="json", exclude=unfingerprinted)
        for name, field in type(self).model_fields.items():
            extra, value = field.json_schema_extra, getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.fingerprint_fields()
            elif isinstance(extra, dict) and extra.get("contents") and value:
                values[name] = content_digest(Path(value))
        return values


def unfingerprinted(default: Any, **constraints: Any) -> Any:
    """A field that says how or where something runs and not what comes out."""
    return Field(default, json_schema_extra={"unfingerprinted": True}, **constraints)


def contents(default: str = "") -> Any:
    """A field with the path of a file or folder: what it holds bears on the result."""
    return Field(default, json_schema_extra={"contents": True})


def content_digest(path: Path) -> str:
    """Digest of a file, or of the names and sizes in a folder; the path where there is nothing."""
    if path.is_file():
        return sha256_of(path)
    if path.is_dir():
        files = sorted((str(f.relative_to(path)), f.stat().st_size) for f in path.rglob("*.*"))
        return hashlib.sha256(repr(files).encode()).hexdigest()
    return str(path)
