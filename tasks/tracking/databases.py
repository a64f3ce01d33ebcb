"""Databases of the servers: made whole, and moved aside where a kill left them broken."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Say = Callable[[str], None]


def being_made(database: Path) -> Path:
    """A mark beside a database that lies there from its first start until its server answers."""
    return database.with_name(f"{database.name}.being-made")


def repair(database: Path, say: Say) -> None:
    """Move a database aside that cannot be read or that a killed server left half made.

    Then mark the database as being made if there is none; whoever starts its server takes the mark
    away when the server answers.
    """
    mark = being_made(database)
    if database.exists():
        problem = _problem(database)
        if not problem and mark.exists():
            problem = "its server was stopped while it made the tables"
        if problem:
            _move_aside(database, problem, say)
    if not database.exists():
        mark.touch()


def prepare_mlflow(database: Path, say: Say) -> None:
    """Have an MLflow database with all tables of this MLflow, by one process at a time.

    A new one gets its name when it is whole. One that an earlier process left half made, which has
    no runs yet, is moved aside. One of an earlier MLflow is copied and brought up to date.
    """
    from mlflow.store.db import utils

    database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(database.with_name("mlflow.lock"), mode=0o600):
        version = ""
        if database.exists() and (problem := _problem(database)):
            _move_aside(database, problem, say)
        if database.exists():
            version, latest = _version(database), utils._get_latest_schema_revision()
            if version == latest:
                return
            if not _has_runs(database):
                _move_aside(database, "it was left half made", say)
        if database.exists():
            copy = database.with_name(f"{database.name}.before-{latest}")
            shutil.copy2(database, copy)
            say(f"{database}: brought to the tables of this MLflow; a copy is {copy.name}")
            _make(database)
            return
        fresh = being_made(database)
        fresh.unlink(missing_ok=True)
        _make(fresh)
        fresh.rename(database)


def _make(database: Path) -> None:
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{database}")
    try:
        if _version(database):
            utils._upgrade_db(engine)
        else:
            utils._initialize_tables(engine)
    finally:
        engine.dispose()


def _problem(database: Path, timeout: float = 10) -> str:
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=timeout)) as connection:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.OperationalError:
        return ""  # such as locked: somebody uses it
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if verdict == "ok" and _version(database) else "it was left half made"


def _version(database: Path) -> str:
    """The revision of its tables, as Alembic records it; empty where there is none."""
    found = _first(database, "SELECT version_num FROM alembic_version")
    return str(found or "")


def _has_runs(database: Path) -> bool:
    return _first(database, "SELECT 1 FROM runs") is not None


def _first(database: Path, query: str) -> object:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        try:
            found = connection.execute(query).fetchone()
        except sqlite3.OperationalError as error:
            if "no such" in str(error):  # table or column
                return None
            raise
    return found[0] if found else None


def _move_aside(database: Path, problem: str, say: Say) -> None:
    aside = database.with_name(f"{database.name}.damaged-{int(time.time())}")
    database.rename(aside)
    for suffix in ("-wal", "-shm", "-journal"):
        extra = database.with_name(database.name + suffix)
        if extra.exists():
            extra.rename(aside.with_name(aside.name + suffix))
    say(f"{database}: {problem}; moved to {aside.name}, a new one is made (artifacts are kept)")
