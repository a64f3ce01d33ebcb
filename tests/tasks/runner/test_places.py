"""Stages of one process take turns, so that weights do not depend on what runs beside."""

import logging
import threading
import time

import torch

from data.artifacts import Evaluation
from flows.recipes import tiny
from tasks.config.evaluation import EvaluateConfig
from tasks.runner.context import StageContext
from tasks.runner.places import work
from tasks.runner.stage import Stage, StageCall, StageDeclaration
from tasks.tracking.stage_log import ConsoleLog


def test_two_stages_in_one_process_draw_as_each_alone(tmp_path):
    drawn = []

    def run(context: StageContext[EvaluateConfig]) -> Evaluation:
        torch.manual_seed(context.config.seed)
        values = []
        for _ in range(5):
            values.append(float(torch.randn(())))
            time.sleep(0.002)
        drawn.append((context.config.seed, values))
        return Evaluation.made(context.out, {})

    config = tiny()
    stage = Stage.of("probe", run, StageDeclaration(1, "A probe"))

    def call(seed):
        chosen = config.evaluate.model_copy(update={"seed": seed})
        context = StageContext(chosen, config.parts, config.runtime, tmp_path, ConsoleLog())
        work(StageCall(stage, context), logging.getLogger("test"))

    call(1)
    call(2)
    alone = sorted(drawn)
    drawn.clear()
    threads = [threading.Thread(target=call, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drawn) == alone
