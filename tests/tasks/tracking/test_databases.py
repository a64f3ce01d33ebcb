"""Databases that a kill left broken or half made are moved aside, and never a whole one."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tasks.tracking.databases import _problem, being_made, prepare_mlflow, repair


@pytest.fixture
def said():
    return []


def make_database(path, versions):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.executemany("INSERT INTO alembic_version VALUES (?)", [[v] for v in versions])
    connection.close()


def test_a_whole_database_is_left_alone(tmp_path, said):
    path = tmp_path / "mlflow.db"
    make_database(path, ["abc"])
    repair(path, said.append)
    assert path.exists()
    assert not said


@pytest.mark.parametrize("kind", ["garbage", "empty", "half made"])
def test_a_broken_database_is_moved_aside(tmp_path, said, kind):
    path = tmp_path / "mlflow.db"
    if kind == "garbage":
        path.write_bytes(b"this is no database" * 400)
    elif kind == "empty":
        path.touch()
    else:
        make_database(path, [])
    before = path.read_bytes()
    repair(path, said.append)
    assert not path.exists()
    (aside,) = tmp_path.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == before
    assert "moved to" in said[0]


def test_a_database_whose_server_was_stopped_while_it_made_the_tables_is_moved(tmp_path, said):
    path = tmp_path / "prefect.db"
    repair(path, said.append)
    assert being_made(path).exists()
    make_database(path, ["abc"])
    repair(path, said.append)
    assert not path.exists()
    assert "while it made the tables" in said[0]
    being_made(path).unlink()  # the server answered
    make_database(path, ["abc"])
    repair(path, said.append)
    assert path.exists()


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A database that was made undisturbed."""
    path = tmp_path_factory.mktemp("whole") / "mlflow.db"
    prepare_mlflow(path, print)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no version", "an early version", "empty", "its first part"])
def test_a_half_made_mlflow_database_is_made_anew(tmp_path, said, whole, kind):
    path = tmp_path / "mlflow.db"
    if kind == "empty":
        path.touch()
    elif kind == "its first part":
        path.write_bytes(whole.read_bytes()[:20480])
    else:
        shutil.copy(whole, path)
        with closing(sqlite3.connect(path)) as connection, connection:
            if kind == "no version":
                connection.execute("DELETE FROM alembic_version")
            else:
                connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
                connection.execute("DROP TABLE registered_models")
    prepare_mlflow(path, said.append)
    assert tables(path) == tables(whole)
    assert len(said) == 1
    assert "moved to" in said[0]
    prepare_mlflow(path, said.append)
    assert len(said) == 1
    assert not being_made(path).exists()


@pytest.mark.slow
def test_one_that_was_left_under_its_own_name_for_the_making_is_made_anew(tmp_path, said, whole):
    path = tmp_path / "mlflow.db"
    being_made(path).write_bytes(whole.read_bytes()[:20480])
    prepare_mlflow(path, said.append)
    assert tables(path) == tables(whole)
    assert not said


@pytest.mark.slow
def test_a_database_with_runs_is_never_moved_and_a_locked_one_is_left(tmp_path, said, whole):
    path = tmp_path / "mlflow.db"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO runs (run_uuid) VALUES ('abc')")
    prepare_mlflow(path, said.append)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        before = path.stat()
        assert _problem(path, timeout=0.1) == ""
        assert path.stat() == before
    assert not said
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [("abc",)]
