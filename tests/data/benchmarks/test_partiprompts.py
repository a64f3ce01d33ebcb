"""Files of votes: what is read, what is left out and on which line."""

import pytest

from data.benchmarks.partiprompts import VotesError, read_votes

HEADER = "Prompt\tCategory\tChallenge\tNote\tDecisions"


def write(tmp_path, *rows, header=HEADER):
    path = tmp_path / "votes.tsv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_rows_are_read(tmp_path):
    path = write(
        tmp_path,
        'a "stop" sign\tArts\tBasic\t\tret,gen,gen,same,gen',
        "",
        "two dogs\tAnimals\tQuantity\tx\tret, ret,ret,ret,ret",
    )
    found = read_votes(path)
    assert [p.prompt for p in found.prompts] == ['a "stop" sign', "two dogs"]
    assert found.prompts[0].votes == ("ret", "gen", "gen", "same", "gen")
    assert (found.prompts[1].votes, found.prompts[1].line) == (("ret",) * 5, 4)
    assert found.prompts[1].category == "Animals"
    assert found.malformed == []


def test_malformed_rows_are_counted_by_reason_and_named_by_line(tmp_path):
    good = "ret,ret,ret,ret,ret"
    path = write(
        tmp_path,
        f"a cat\tA\tB\t\t{good}",
        f"a dog\tA\t{good}",
        "a cow\tA\tB\t\tret,gen,maybe,same,gen",
        "a pig\tA\tB\t\tret,gen",
        f"a cat\tA\tB\t\t{good}",
        f" \tA\tB\t\t{good}",
    )
    found = read_votes(path)
    assert [p.prompt for p in found.prompts] == ["a cat"]
    assert [str(row) for row in found.malformed] == [
        "line 3: wrong number of columns: 3, not 5",
        "line 4: unknown vote: ['maybe']; votes are gen, ret, same",
        "line 5: wrong number of votes: 2, not 5",
        "line 6: duplicate prompt: line 2 has 'a cat' too",
        "line 7: empty prompt: ' '",
    ]
    assert sum(found.dropped().values()) == 5


def test_other_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "votes.tsv"
    text = f"{HEADER}\r\na cat\tA\tB\t\tgen,gen,gen,gen,same\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_votes(path).prompts[0].votes[-1] == "same"


def test_one_bad_line_costs_no_other(tmp_path):
    path = tmp_path / "votes.tsv"
    rows = b"caf\xe9\tA\tB\t\tret,ret,ret,ret,ret\na cat\tA\tB\t\tgen,gen,gen,gen,same\n\0\n"
    path.write_bytes(HEADER.encode() + b"\n" + rows)
    found = read_votes(path)
    assert [row.prompt for row in found.prompts] == ["a cat"]
    assert found.dropped() == {"not UTF-8": 1, "wrong number of columns": 1}
    assert found.malformed[0].line == 2


def test_useless_files_say_why(tmp_path):
    with pytest.raises(VotesError, match=r"cannot read the votes .*absent"):
        read_votes(tmp_path / "absent.tsv")
    with pytest.raises(VotesError, match=r"lacks \['Decisions'\]"):
        read_votes(write(tmp_path, header="Prompt\tVotes"))
    with pytest.raises(VotesError, match=r"no row .* line 2: unknown vote"):
        read_votes(write(tmp_path, "a\tA\tB\t\tyes,no,yes,no,yes"))
    (tmp_path / "latin.tsv").write_bytes(HEADER.encode() + b"\ncaf\xe9\tA\tB\t\tret\n")
    with pytest.raises(VotesError, match=r"no row .* line 2: not UTF-8: byte 3 of the line"):
        read_votes(tmp_path / "latin.tsv")
