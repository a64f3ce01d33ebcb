"""What answers say of a file's version."""

import httpx
import pytest

from data.sources.http_version import Version, first_byte


def test_the_size_is_of_the_whole_file():
    whole = httpx.Response(200, headers={"Content-Length": "9", "ETag": 'W/"a"'})
    part = httpx.Response(206, headers={"Content-Length": "3", "Content-Range": "bytes 6-8/9"})
    beyond = httpx.Response(416, headers={"Content-Length": "0", "Content-Range": "bytes */9"})
    assert Version.of(whole) == Version('"a"', "", 9)
    assert Version.of(part).size == Version.of(beyond).size == 9
    assert Version.of(httpx.Response(206, headers={"Content-Range": "bytes 6-8/*"})).size is None
    assert first_byte(part) == 6
    assert first_byte(whole) is None
    assert first_byte(httpx.Response(206)) == -1


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        (Version("a", "x", 1), Version("a", "y", 1), False),
        (Version("a"), Version("b"), True),
        (Version("a", "x"), Version("", "x"), False),
        (Version("", "x"), Version("", "y"), True),
        (Version("a", "", 1), Version("a", "", 2), True),
        (Version(), Version("a", "x", 1), False),
    ],
)
def test_what_differs(one, other, differs):
    assert one.differs(other) == other.differs(one) == differs
    assert one.joined(other) == Version(
        one.etag or other.etag, one.modified or other.modified, one.size or other.size
    )


def test_it_is_told_in_words():
    assert str(Version('"a"', "Tue", 1234)) == 'ETag "a", of Tue, 1,234 bytes'
    assert str(Version()) == "unnamed"
