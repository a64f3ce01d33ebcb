"""What the command's parser refuses is a line, with the nearest of what there is."""

import pytest

import flows.checks  # noqa: F401  with it torch, whose import starts a process
from flows.cli.app import main


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["run", "--recipe", "embeded"], "Did you mean 'embedded'?"),
        (["run", "--recipe", ""], "is not one of 'embedded', 'tiny'"),
        (["run", "--recipee", "tiny"], "--recipe"),
        (["run", "maper"], "did you mean 'mapper'?"),
        (["run", ""], "unknown stage ''"),
        (["run", "../mapper"], "did you mean 'mapper'?"),
        (["run", "mapper", "index"], "unexpected extra argument"),
        (["run", "--set"], "--set"),
        (["run", "--set", "mapper.steps"], "'mapper.steps' is no setting"),
        (["run", "--set", "mapper.steps=1e30"], "mapper.steps is 1e+30; it must be a whole number"),
        (["run", "--set", "mapper.steps=NaN"], "mapper.steps is nan"),
        (["run", "--set", "runtime.device=cuda:99", "--recipe", "tiny"], "there is no cuda:99"),
        (["run", "--set", "adapters.initial_prompt=\udcff"], "is not valid UTF-8"),
        (["run", "mapper", "--recipe", "tiny", "--set", "schedule=joint"], "no stage 'mapper'"),
        (["rnu"], "No such command 'rnu'"),
        (["config", "--set", "mapper.kind=conv"], "it must be 'gill', 'linear'"),
    ],
)
def test_a_slip_of_the_pen_is_a_line_and_status_2(var, capsys, given, message):
    before = b'{"stages": {}}'
    (var / "last_run.json").write_bytes(before)
    assert main(given) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("error: ")
    # The last good model is found as before, and no server was begun.
    assert (var / "last_run.json").read_bytes() == before
    assert {path.name for path in var.iterdir()} <= {"last_run.json", "digests.json"}
