"""What of a configuration bears on a result: values, what files hold, and not how a stage runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from gill.settings import setting
from tasks.config.base import Config, content_digest, contents, unfingerprinted


class Inner(Config):
    weights: str = contents("weights of a network")
    size: int = setting(3, "of something")


class Outer(Config):
    inner: Inner = Inner()
    steps: int = setting(5, "updates")
    log_every: int = unfingerprinted(10, "between two points", unit="steps", ge=1)
    file: str = contents("a file of votes")
    pair: tuple[int, int] = setting((1, 2), "of numbers")


def fields(**changes: Any) -> dict[str, Any]:
    return Outer(**changes).fingerprint_fields()


def test_how_a_stage_runs_is_left_out():
    assert fields() == {
        "inner": {"weights": "", "size": 3}, "steps": 5, "file": "", "pair": [1, 2],
    }  # fmt: skip
    assert fields(log_every=99) == fields()
    assert fields(steps=6) != fields()


def test_a_file_counts_by_what_it_holds_not_by_its_place(tmp_path):
    here, there = tmp_path / "a.tsv", tmp_path / "moved" / "b.tsv"
    there.parent.mkdir()
    for path in (here, there):
        path.write_text("votes")
    assert fields(file=str(here)) == fields(file=str(there))
    assert str(tmp_path) not in str(fields(file=str(here)))
    there.write_text("other votes")
    assert fields(file=str(here)) != fields(file=str(there))


def test_files_of_a_part_count_too_and_so_do_folders(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x.bin").write_bytes(b"1")
    before = fields(inner=Inner(weights=str(tmp_path / "w")))
    (tmp_path / "w" / "y.bin").write_bytes(b"2")
    assert fields(inner=Inner(weights=str(tmp_path / "w"))) != before


def test_a_path_where_there_is_nothing_stands_for_itself(tmp_path):
    """A hub's name, or a file that is given later: then the fingerprint changes, as it should."""
    path = tmp_path / "later"
    assert content_digest(path) == str(path)
    path.write_text("x")
    assert content_digest(path) != str(path)


def test_configurations_are_frozen_and_know_their_names():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().steps = 6
    with pytest.raises(ValidationError, match="stepps"):
        Outer(stepps=6)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Outer(log_every=0)
