"""Two workers of the real adapters stage: equal to one, ended by one, and never orphans."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from data.shards import read_table
from flows.recipes import resolve
from tasks.runner import launcher
from tasks.runner.context import StageContext
from tasks.runner.launcher import StageWorkerError
from tasks.runner.registry import stage_named
from tasks.runner.stage import StageCall
from tasks.tracking.stage_log import ConsoleLog

pytestmark = [pytest.mark.timeout(400), pytest.mark.process]
STAGES = ("adapters", "mapper", "joint")
PARAMETERS = {
    "download": "images",
    "clip_features": "features",
    "text_targets": "targets",
    "adapters": "adapters",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Artifacts of the stages before, made by their own code."""
    folder, found = tmp_path_factory.mktemp("inputs"), {}
    for name, parameter in PARAMETERS.items():
        found[parameter] = call_of(found, folder / name, name)()
    return found


def call_of(inputs, out, name="adapters", **overrides):
    config = resolve("tiny", {"adapters.refine_steps": 0, **overrides})
    out.mkdir()
    stage = stage_named(name)
    context = StageContext(getattr(config, name), config.parts, config.runtime, out, ConsoleLog())
    return StageCall(stage, context, {need: inputs[need] for need in stage.needs})


# Batches of 7 of 16 rows in a buffer: uneven parts for two workers.
UNEVEN = {
    "adapters.batch_size": 7, "adapters.steps": 6,
    "mapper.batch_size": 7, "mapper.steps": 6, "mapper.kind": "mlp",
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_make_what_one_makes(inputs, tmp_path, stage):
    one_alone = call_of(inputs, tmp_path / "one", stage, **UNEVEN)
    expected = one_alone().metrics
    two = call_of(inputs, tmp_path / "two", stage, **UNEVEN, **{"runtime.workers": 2})
    found = launcher.run(two, logging.getLogger("test"), 2).metrics
    alone, pair = one_alone.context, two.context
    assert found.keys() == expected.keys()
    for name in ("validation_loss", "validation_l_g"):
        if name in expected:
            assert found[name] == pytest.approx(expected[name], abs=1e-4)
    names = sorted(p.relative_to(alone.out) for p in alone.out.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(pair.out) for p in pair.out.rglob("*") if p.is_file())
    for name in names:
        if name.suffix == ".safetensors":
            one, two = load_file(alone.out / name), load_file(pair.out / name)
            for key, value in one.items():
                torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-5, msg=key)
        if name.suffix == ".parquet":
            one, two = (read_table(c.out / name) for c in (alone, pair))
            assert one.column("key") == two.column("key")
    assert not pair.out.with_suffix(".workers").exists()


def test_one_rank_in_its_own_process_makes_what_the_flow_makes(inputs, tmp_path):
    here = call_of(inputs, tmp_path / "here", **{"adapters.steps": 4})
    apart = call_of(inputs, tmp_path / "apart", **{"adapters.steps": 4})
    expected, found = here(), launcher.run(apart, logging.getLogger("test"))
    assert type(found) is type(expected)
    assert found.metrics == pytest.approx(expected.metrics)
    rates = {"steps/s", "[IMG] states/s"}
    assert set(apart.context.log.measured) == set(here.context.log.measured) == rates
    one, two = (load_file(made.adapters_weights) for made in (expected, found))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-6, rtol=1e-5, msg=key)


def ranks_of(out):
    """The rank processes that work for a folder, whoever their parent is."""
    fingerprint = str(out.with_suffix(".workers"))
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(fingerprint in word for word in process.info["cmdline"] or [])
        and "tasks.runner.worker" in process.info["cmdline"]
    ]


def wait_for(ready, seconds=180):
    until = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)
    return found


def has_trained(out):
    return list(out.glob("checkpoint-*.pt"))


ENDLESS = {"adapters.steps": 100_000, "adapters.checkpoint_every": 1, "runtime.workers": 2}


def launched(call):
    """The stage running in a thread, and what will hold the error that ends it."""
    caught = []

    def work():
        try:
            launcher.run(call, logging.getLogger("test"), 2)
        except StageWorkerError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, caught


def test_a_dead_rank_ends_the_stage_with_its_log(inputs, tmp_path):
    call = call_of(inputs, tmp_path / "out", **ENDLESS)
    context, (thread, caught) = call.context, launched(call)
    wait_for(lambda: has_trained(context.out))
    victim = next(p for p in ranks_of(context.out) if p.cmdline()[-1] == "1")
    victim.send_signal(signal.SIGKILL)
    thread.join(timeout=60)
    assert 1 in caught[0].workers
    assert "worker 1 of 2 was killed by SIGKILL" in str(caught[0])
    wait_for(lambda: not ranks_of(context.out), 10)
    # What was reached is kept, and another number of workers goes on from it.
    reached = int(sorted(has_trained(context.out))[-1].stem.split("-")[1])
    assert reached > 0


def test_an_error_in_a_rank_is_shown(inputs, tmp_path):
    call = call_of(inputs, tmp_path / "out", **ENDLESS)
    broken = replace(call, inputs={"images": inputs["images"]})
    with pytest.raises(StageWorkerError, match=r"adapters ended because of worker \d.*'features'"):
        launcher.run(broken, logging.getLogger("test"), 2)
    assert not ranks_of(call.context.out)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_no_rank_outlives_a_killed_launcher(inputs, tmp_path):
    out, paths = (
        tmp_path / "out",
        {name: str(inputs[name].path) for name in stage_named("adapters").needs},
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    launcher = subprocess.Popen([sys.executable, __file__, json.dumps(paths), out], env=environment)
    wait_for(lambda: has_trained(out) or launcher.poll() is not None)
    assert len(ranks_of(out)) == 2
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_for(lambda: not ranks_of(out), 10)


def test_a_cancelled_run_stops_its_workers(inputs, tmp_path):
    call = call_of(inputs, tmp_path / "out", **ENDLESS)
    context, (thread, caught) = call.context, launched(call)
    wait_for(lambda: len(ranks_of(context.out)) == 2)
    launcher.stop_all()
    thread.join(timeout=30)
    assert caught
    assert not ranks_of(context.out)


if __name__ == "__main__":
    needs = stage_named("adapters").needs
    made = {n: needs[n](n, n, Path(path)) for n, path in json.loads(sys.argv[1]).items()}
    launcher.run(call_of(made, Path(sys.argv[2]), **ENDLESS), logging.getLogger("test"), 2)


def test_the_cause_is_the_last_exception_and_all_that_it_says(tmp_path):
    log = tmp_path / "worker-0.log"
    printed = log.with_suffix(".err")
    printed.write_text("some library says\nERROR: nothing of note\n")
    assert launcher.cause_in(log) == ""
    first = "Traceback (most recent call last):\n  File x\nKeyError: 'one'\n"
    printed.write_text(
        f"noise\n{first}\nDuring handling ...\n\n{first}ValueError: two\nwith a line\n"
    )
    assert launcher.cause_in(log) == "KeyError: 'one' ValueError: two with a line"
    printed.write_text(
        "[rank1]: Traceback (most recent call last):\n[rank1]:   File x\n[rank1]: OSError: full\n"
    )
    assert launcher.cause_in(log) == "OSError: full"
