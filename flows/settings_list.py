"""Lists the settings of a configuration from their declarations, for a terminal and the docs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config import PipelineConfig
from flows.recipes import RECIPES

REQUIRED = "(no default)"


@dataclass(frozen=True)
class SettingLine:
    """A setting of a configuration, as its owner declared it.

    Attributes:
        key: as it is overridden, such as ``mapper.learning_rate``.
        kind: its type. value: in this configuration. default: where no recipe says otherwise.
        unit: of the value. description: its meaning. source: where the default comes from.
    """

    key: str
    kind: str
    value: Any
    default: Any
    unit: str
    description: str
    source: str

    @property
    def changed(self) -> bool:
        """Whether the recipe or an override says something else than the default."""
        return bool(self.value != self.default)

    def matches(self, word: str) -> bool:
        """Whether the key or the meaning has the word."""
        return word.lower() in f"{self.key} {self.description}".lower()


def lines_of(config: PipelineConfig) -> list[SettingLine]:
    """Every setting that can be overridden, in the order of the stages."""
    return list(_lines(config, ""))


def _lines(model: BaseModel, prefix: str) -> Iterator[SettingLine]:
    values = {name: getattr(model, name) for name in type(model).model_fields}
    inner = {name: value for name, value in values.items() if isinstance(value, BaseModel)}
    for name in (n for n in values if n not in inner):
        field, value = type(model).model_fields[name], values[name]
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        yield SettingLine(
            key=f"{prefix}{name}",
            kind=_kind(field.annotation),
            value=value,
            default=_default(field),
            unit=str(marks.get("unit", "")),
            description=field.description or "",
            source=str(marks.get("source", "")),
        )
    for name, section in inner.items():
        yield from _lines(section, f"{prefix}{name}.")


def _default(field: FieldInfo) -> Any:
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join("none" if a is NoneType else _kind(a) for a in inner)
    if origin is tuple:
        kinds = dict.fromkeys(_kind(a) for a in inner if a is not Ellipsis)
        return f"list of {', '.join(kinds)}" if kinds else "empty list"
    if origin is dict:
        return f"map of {' to '.join(map(_kind, inner))}"
    return str(getattr(annotation, "__name__", annotation))


def as_text(lines: Sequence[SettingLine]) -> str:
    """Two lines a setting: key and value, then what it means; ``*`` marks what differs."""
    found = []
    for line in lines:
        unit = f" {line.unit}" if line.unit else ""
        default = f" (default {line.default!r})" if line.changed else ""
        if line.default == REQUIRED:
            default = f" {REQUIRED}"
        found.append(f"{'*' if line.changed else ' '} {line.key} = {line.value!r}{unit}{default}")
        source = f" Default from: {line.source}." if line.source else ""
        found.append(f"      {line.kind}: {line.description}.{source}")
    return "\n".join(found)


def as_markdown() -> str:
    """The reference page: every setting with its default, by section."""
    config = RECIPES["embedded"]()
    page = [
        "# Configuration",
        "",
        "Made by `gill config --markdown` from the declarations; a test keeps it current. A recipe "
        "(`flows/recipes.py`) sets some of them, `gill config --recipe embedded --changed` prints "
        "which, and `--set key=value` overrides one for a run.",
    ]
    section = ""
    for line in lines_of(config):
        own = line.key.rpartition(".")[0] or "pipeline"
        if own != section:
            section = own
            page += ["", f"## {own}", "", _about(config, own), ""]
            page += ["| key | type | default | unit | meaning | source of the default |"]
            page += ["|---|---|---|---|---|---|"]
        cells = (f"`{line.key}`", line.kind, _shown(line.default), line.unit, line.description,
                 line.source)  # fmt: skip
        page.append("| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |")
    return "\n".join(page) + "\n"


def _about(config: PipelineConfig, section: str) -> str:
    model: Any = config
    for name in section.split(".") if section != "pipeline" else ():
        model = getattr(model, name)
    return str(type(model).__doc__).strip().partition("\n")[0].replace("``", "`")


def _shown(default: Any) -> str:
    return default if default == REQUIRED else f"`{default!r}`"
