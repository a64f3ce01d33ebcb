"""Lines of lists are kept word for word, and what cannot be read is counted."""

import gzip

from data.sources.base import Pair
from data.sources.captioned_urls import CaptionedUrls


def urls(path, data, **settings):
    path.write_bytes(data)
    return list(CaptionedUrls({"train": str(path)}, **settings).pairs("train"))


def test_lines_are_kept_word_for_word(tmp_path):
    data = '"a"\tb\thttp://x.org/1\r\nline\u2028in one\t http://x.org/2 \n'.encode()
    first, second = urls(tmp_path / "l.tsv", data)
    assert first == Pair("train-000000000", '"a"\tb', "http://x.org/1", "cc3m", None)
    assert second.caption == "line\u2028in one"
    assert second.origin == "http://x.org/2"


def test_lines_that_cannot_be_read_are_counted(tmp_path):
    data = b"\xef\xbb\xbfa\tu\nno tab\n\xff\tu\n" + b"x" * (3 << 20) + b"\nb\tu"
    rows = urls(tmp_path / "l.tsv", data)
    assert rows[0].caption == "a", "a byte order mark is not text"
    assert [getattr(r, "reason", "") for r in rows] == [
        "",
        "no_tab",
        "not_utf8",
        "line_too_long",
        "",
    ]
    assert rows[-1].key == "train-000000004"


def test_a_list_that_is_cut_keeps_its_rows_and_counts_the_loss(tmp_path):
    lines = b"".join(b"cap %d\thttp://x.org/%d.jpg\n" % (i, i * 7919) for i in range(20_000))
    rows = urls(tmp_path / "l.tsv.gz", gzip.compress(lines)[:-40_000])
    assert len(rows) > 1000
    assert {type(r) for r in rows[:-1]} == {Pair}
    assert rows[-1].reason == "damaged_list"
    assert "l.tsv.gz" in rows[-1].place


def test_a_bomb_is_given_up_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("data.sources.opening._INFLATED_FROM", 1 << 20)
    rows = urls(tmp_path / "l.tsv.gz", gzip.compress(b"a\tu\n" + bytes(30 << 20)))
    assert [getattr(r, "reason", "") for r in rows] == ["", "damaged_list"]
    assert "grows to more than" in rows[-1].place


def test_an_exception_that_nobody_expected_of_a_line_is_counted(tmp_path, monkeypatch):
    from data.sources import captioned_urls

    row = captioned_urls._row

    def odd(line):
        return row(line) if "odd" not in line.text else 1 / 0

    monkeypatch.setattr(captioned_urls, "_row", odd)
    rows = urls(tmp_path / "l.tsv", b"a\tu\nodd\tu\nb\tu\n")
    assert [getattr(r, "reason", "") for r in rows] == ["", "unexpected:ZeroDivisionError", ""]
    assert "l.tsv line 2" in rows[1].place
