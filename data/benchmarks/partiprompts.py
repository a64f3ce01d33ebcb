"""Human votes on prompts: PartiPrompts' TSV with a column of decisions.

The columns are ``Prompt  Category  Challenge  Note  Decisions``, and a decision is five votes such
as ``ret,gen,gen,same,gen``: whether a retrieved or a generated image fits the prompt better.
"""

from __future__ import annotations

import codecs
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from data.faults import Tolerance

Vote = Literal["gen", "ret", "same"]
VOTES = get_args(Vote)
ANNOTATORS = 5
NEEDED = ("Prompt", "Decisions")


class VotesError(ValueError):
    """A file of votes cannot be used at all."""


@dataclass(frozen=True)
class VotedPrompt:
    """A prompt, its category or "", its votes in the file's order, and the line it stands on."""

    prompt: str
    category: str
    votes: tuple[Vote, ...]
    line: int


@dataclass(frozen=True)
class Malformed:
    """A row that is left out: the line, the reason it is counted by, and what was found there."""

    line: int
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}: {self.detail}"


@dataclass(frozen=True)
class VoteFile:
    """The rows of a file of votes and those that are left out."""

    prompts: list[VotedPrompt]
    malformed: list[Malformed]

    def dropped(self) -> dict[str, int]:
        """Number of rows left out, by reason."""
        return dict(Counter(row.reason for row in self.malformed))


def read_votes(path: Path) -> VoteFile:
    """Read a tab-separated file of votes; quotes in prompts are text.

    Malformed rows are left out and reported: missing columns, an empty prompt, unknown votes, other
    than five votes, a prompt that an earlier line has, bytes that are not UTF-8.

    Raises:
        VotesError: there is no such file, its header lacks a column, or no row is whole.
        SystematicFaultError: too many lines raise what nobody expects.
    """
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise VotesError(f"cannot read the votes {path}: {error.strerror}") from error
    header = lines[0].decode(errors="backslashreplace").rstrip("\r").split("\t")
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise VotesError(
            f"line 1 of {path} has the columns {header} and lacks {missing}; it must name "
            "Prompt, Category, Challenge, Note and Decisions, separated by tabs"
        )
    prompts: list[VotedPrompt] = []
    malformed: list[Malformed] = []
    faults = Tolerance("lines of votes")
    first_at: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        row = _guarded(line, header, number, first_at, faults)
        if isinstance(row, Malformed):
            malformed.append(row)
        else:
            first_at[row.prompt] = number
            prompts.append(row)
    if not prompts:
        listed = "; ".join(map(str, malformed[:5])) or "it has no rows"
        raise VotesError(f"no row of {path} can be used: {listed}")
    return VoteFile(prompts, malformed)


def _guarded(
    data: bytes, header: list[str], line: int, first_at: dict[str, int], faults: Tolerance
) -> VotedPrompt | Malformed:
    try:
        row = _row(data.decode().rstrip("\r").split("\t"), header, line, first_at)
    except UnicodeDecodeError as error:
        row = Malformed(line, "not UTF-8", f"byte {error.start} of the line: save it as UTF-8")
    except Exception as error:  # noqa: BLE001 one line must not end the others
        return Malformed(line, faults.unexpected(f"line {line}", error), str(error)[:300])
    faults.expected()
    return row


def _row(
    cells: list[str], header: list[str], line: int, first_at: dict[str, int]
) -> VotedPrompt | Malformed:
    if len(cells) != len(header):
        return Malformed(line, "wrong number of columns", f"{len(cells)}, not {len(header)}")
    values = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    prompt = values["Prompt"]
    if not prompt:
        return Malformed(line, "empty prompt", repr(cells[header.index("Prompt")]))
    votes = tuple(vote.strip() for vote in values["Decisions"].split(","))
    unknown = sorted(set(votes) - set(VOTES))
    if unknown:
        return Malformed(line, "unknown vote", f"{unknown}; votes are {', '.join(VOTES)}")
    if len(votes) != ANNOTATORS:
        return Malformed(line, "wrong number of votes", f"{len(votes)}, not {ANNOTATORS}")
    if prompt in first_at:
        return Malformed(line, "duplicate prompt", f"line {first_at[prompt]} has {prompt!r} too")
    return VotedPrompt(prompt, values.get("Category", ""), cast("tuple[Vote, ...]", votes), line)
