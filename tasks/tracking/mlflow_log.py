"""A stage's log in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image
from tasks.tracking.mlflow_runs import client, log_metrics
from tasks.tracking.stage_log import ConsoleLog


class MlflowStageLog(ConsoleLog):
    """A ``StageLog`` that writes into one MLflow run, and progress to the given logger."""

    def __init__(self, run_id: str, progress_logger: Any) -> None:
        super().__init__()
        self.run_id = run_id
        self._logger = progress_logger

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """See ``StageLog``."""
        log_metrics(self.run_id, values, step)

    def image(self, name: str, image: Image) -> None:
        """See ``StageLog``."""
        client().log_image(self.run_id, image, artifact_file=f"{name}.png")

    def figure(self, name: str, figure: Figure) -> None:
        """See ``StageLog``."""
        client().log_figure(self.run_id, figure, f"{name}.png")

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """See ``StageLog``."""
        import mlflow
        import pandas as pd
        from PIL.Image import Image

        shown = {
            key: [mlflow.Image(v) if isinstance(v, Image) else v for v in values]
            for key, values in columns.items()
        }
        client().log_table(self.run_id, pd.DataFrame(shown), f"{name}.json")

    def document(self, name: str, text: str) -> None:
        """See ``StageLog``."""
        client().log_text(self.run_id, text, name)

    def note(self, text: str) -> None:
        """See ``StageLog``."""
        self._logger.info(text)

    def progress(self, done: int, total: int, unit: str, resumed: int = 0) -> None:
        """See ``StageLog``."""
        if line := self._eta.line(done, total, unit, resumed):
            self._logger.info(line)
