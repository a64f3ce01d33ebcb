"""What a stage may say while it works, and a form of it for the console."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


logger = logging.getLogger("gill")


class StageLog(Protocol):
    """What a stage may say while it works.

    Attributes:
        measured: what the work took: units a second as ``steps/s``, counted from the first time
            that the unit was told of, and ``peak_gpu_memory_bytes``. Kept in the manifest.
    """

    measured: dict[str, float]

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at a step."""

    def image(self, name: str, image: Image) -> None:
        """An image, shown among the run's artifacts."""

    def figure(self, name: str, figure: Figure) -> None:
        """A plot."""

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """A table; PIL images in it are shown."""

    def document(self, name: str, text: str) -> None:
        """A text file, such as ``report.html``."""

    def note(self, text: str) -> None:
        """A line for the log."""

    def progress(self, done: int, total: int, unit: str, resumed: int = 0) -> None:
        """How far a long piece of work is; ``resumed`` of it was done by an earlier process."""


@dataclass
class Eta:
    """Turns counts into a line with a rate and the time that is left, at most every few seconds.

    Attributes:
        rates: the last rate of each unit, by ``<unit>/s``.
    """

    every: float = 5.0
    rates: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)  # what the last line said, as values
    _started: dict[str, tuple[float, int]] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)

    def line(self, done: int, total: int, unit: str, resumed: int = 0) -> str | None:
        """The line to print, or None when the last one is recent."""
        now = time.monotonic()
        began, first = self._started.setdefault(unit, (now, max(resumed, done if done else 0)))
        rate = (done - first) / (now - began) if now > began and done > first else 0.0
        if rate:
            self.rates[f"{unit}/s"] = rate
        if done < total and now - self._said.get(unit, -1e9) < self.every:
            return None
        self._said[unit] = now
        seconds = (total - done) / rate if rate else None
        left = "measuring" if seconds is None else f"{seconds:.0f} s left"
        self.last = {
            "done": done, "total": total, "unit": unit, "rate": rate, "seconds_left": seconds,
        }  # fmt: skip
        return f"{done}/{total} {unit} ({100 * done / max(1, total):.0f}%), {rate:.1f}/s, {left}"


class ConsoleLog(StageLog):
    """A ``StageLog`` without MLflow: keeps metrics and tables and prints progress."""

    def __init__(self) -> None:
        self.history: list[tuple[int, dict[str, float]]] = []
        self.tables: dict[str, Mapping[str, Sequence[Any]]] = {}
        self.measured = {}
        self._eta = Eta(rates=self.measured)

    @override
    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.history.append((step, dict(values)))

    @override
    def image(self, name: str, image: Image) -> None:
        pass

    @override
    def figure(self, name: str, figure: Figure) -> None:
        pass

    @override
    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        self.tables[name] = columns

    @override
    def document(self, name: str, text: str) -> None:
        pass

    @override
    def note(self, text: str) -> None:
        logger.info(text)

    @override
    def progress(self, done: int, total: int, unit: str, resumed: int = 0) -> None:
        if line := self._eta.line(done, total, unit, resumed):
            logger.info(line)
