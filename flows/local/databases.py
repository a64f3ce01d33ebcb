"""Databases that a killed server left broken are moved aside."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path


def repair(database: Path, say: Callable[[str], None]) -> None:
    """Move a database aside that cannot be read or that a killed server left half made."""
    if not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
            tables = {
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            versions = (
                connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0]
                if "alembic_version" in tables
                else 0
            )
        problem = "" if verdict == "ok" and versions else "it was left half made"
    except sqlite3.DatabaseError as error:
        problem = str(error)
    if problem:
        aside = database.with_name(f"{database.name}.damaged-{int(time.time())}")
        database.rename(aside)
        for suffix in ("-wal", "-shm"):
            extra = database.with_name(database.name + suffix)
            if extra.exists():
                extra.rename(aside.with_name(aside.name + suffix))
        say(f"{database}: {problem}; moved to {aside.name}, a new one is made (artifacts are kept)")
