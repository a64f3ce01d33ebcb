"""One worker of a stage, started by the launcher as ``python -m`` with a description, a rank."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

# The first worker validates and writes while the others wait for it; dead workers are noticed by
# the launcher and not by a timeout.
PATIENCE = timedelta(hours=12)
_PR_SET_PDEATHSIG = 1


def die_with(launcher: int) -> None:
    """Have the kernel kill this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit(f"the process {launcher} that started this worker is gone")


def main() -> None:
    """Join the others, run the stage, and let the first worker write its metrics."""
    described: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    rank = int(sys.argv[2])
    die_with(described["launcher"])
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    import torch
    import torch.distributed as dist

    from data.artifacts import Artifact
    from data.io.atomic import write_json
    from gill.data_parallel import WorkerGroup
    from tasks.config.parts import PartsConfig, RuntimeConfig
    from tasks.parts.devices import device_of, on_own_device
    from tasks.runner.context import StageContext
    from tasks.runner.launcher import RESULT
    from tasks.runner.registry import stage_named
    from tasks.runner.stage import StageCall
    from tasks.tracking.memory import GPU, peak_gpu_memory
    from tasks.tracking.mlflow_log import MlflowStageLog
    from tasks.tracking.stage_log import ConsoleLog

    size: int = described["size"]
    runtime = on_own_device(RuntimeConfig(**described["runtime"]), rank, size)
    device = device_of(runtime)
    if device.index is not None:
        torch.cuda.set_device(device)  # what names no device goes there as well
    if size > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{described['meeting']}",
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
    workers, run_id = WorkerGroup.current(), described["run_id"]
    logger = logging.getLogger("gill")
    stage = stage_named(described["stage"])

    def artifact(kind: type[Artifact], values: list[str]) -> Artifact:
        maker, fingerprint, path = values
        return kind(maker, fingerprint, Path(path))

    out = Path(described["out"])
    context = StageContext(
        config=stage.config.model_validate(described["config"]),
        parts=PartsConfig(**described["parts"]),
        runtime=runtime,
        out=out,
        log=MlflowStageLog(run_id, logger, out) if workers.first and run_id else ConsoleLog(),
        identity=described["identity"],
        donors=tuple(Path(path) for path in described["donors"]),
        earlier=described["earlier"] and artifact(stage.makes, described["earlier"]),
    )
    inputs = {n: artifact(stage.needs[n], values) for n, values in described["inputs"].items()}
    made = StageCall(stage, context, inputs)()
    workers.barrier()
    if workers.first:
        measured = dict(context.log.measured)
        if held := peak_gpu_memory():
            measured[GPU] = held
        result = {"metrics": dict(made.metrics), "measured": measured}
        write_json(Path(sys.argv[1]).with_name(RESULT), result)
    if size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
