"""A stage's log in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
from tasks.tracking.memory import GPU, peak_gpu_memory
from tasks.tracking.mlflow_runs import client, log_metrics
from tasks.tracking.progress import write_progress
from tasks.tracking.stage_log import ConsoleLog


class MlflowStageLog(ConsoleLog):
    """A ``StageLog`` that writes into one MLflow run, and progress to the given logger.

    Args:
        work: the folder of unfinished work, beside which it is said how far that is; see
            ``tasks.tracking.progress``.
    """

    def __init__(self, run_id: str, progress_logger: Any, work: Path | None = None) -> None:
        super().__init__()
        self.run_id = run_id
        self._logger, self._work = progress_logger, work
        self._last: dict[str, float] = {}  # the newest first

    @override
    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._last = {**values, **{k: v for k, v in self._last.items() if k not in values}}
        log_metrics(self.run_id, values, step)

    @override
    def image(self, name: str, image: Image) -> None:
        client().log_image(self.run_id, image, artifact_file=f"{name}.png")

    @override
    def figure(self, name: str, figure: Figure) -> None:
        client().log_figure(self.run_id, figure, f"{name}.png")

    @override
    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        import mlflow
        import pandas as pd
        from PIL.Image import Image

        shown = {
            key: [mlflow.Image(v) if isinstance(v, Image) else v for v in values]
            for key, values in columns.items()
        }
        client().log_table(self.run_id, pd.DataFrame(shown), f"{name}.json")

    @override
    def document(self, name: str, text: str) -> None:
        client().log_text(self.run_id, text, name)

    @override
    def note(self, text: str) -> None:
        self._logger.info(text)

    @override
    def progress(self, done: int, total: int, unit: str, resumed: int = 0) -> None:
        if line := self._eta.line(done, total, unit, resumed):
            self._logger.info(line)
            if self._work is not None:
                held = peak_gpu_memory()
                write_progress(
                    self._work, self._eta.last | ({GPU: held} if held else {}), self._last
                )
