"""Where a stage runs: in this process, in processes of its own, or its shards on a cluster."""

from __future__ import annotations

import threading
from typing import Any

from data.artifacts import Artifact, ImageShards, ShardedArtifact
from tasks.config.data import ShardedConfig
from tasks.runner import launcher
from tasks.runner.fan_out import convert_on_workers
from tasks.runner.stage import StageCall

# One stage at a time in this process: what is trained draws from PyTorch's generator, which all
# threads share, and so does every module that is made and every library that seeds it.
_HERE = threading.Lock()


def work(call: StageCall, logger: Any) -> Artifact:
    """Run a stage where its declaration and the runtime say, and return what it made."""
    declared, runtime, config = call.stage.declared, call.context.runtime, call.context.config
    makes = call.stage.makes
    images = [made for made in call.inputs.values() if isinstance(made, ImageShards)]
    on_workers = isinstance(config, ShardedConfig) and config.runner == "ray" and images
    if on_workers and issubclass(makes, ShardedArtifact):
        convert_on_workers(call, config, images[0], makes.FOLDER)  # what follows finds all shards
    size = runtime.workers if declared.data_parallel else 1
    if size > 1 or (runtime.own_process and declared.computes):
        return launcher.run(call, logger, size)
    with _HERE:
        return call()
