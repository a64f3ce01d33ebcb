"""A stream over a real server that cuts and lies: each byte comes once, or it is said why not."""

import gzip
import io
import random

import pytest
from file_server import serving_files

from data.sources import http_stream
from data.sources.http_stream import HttpStream, StreamError

pytestmark = pytest.mark.slow  # a web server of its own
DATA = random.Random(0).randbytes(400_000)


@pytest.fixture
def files(monkeypatch):
    monkeypatch.setattr(http_stream, "WAITS", (0.0,) * 4)
    with serving_files() as server:
        yield server


def read(url):
    with HttpStream(url, url) as stream, io.BufferedReader(stream) as file:
        return file.read()


def test_a_whole_file_is_one_request(files):
    assert read(files.url("a", DATA)) == DATA
    assert files.asked == [("GET", "/a", "")]
    assert read(files.url("empty", b"")) == b""


@pytest.mark.parametrize("softly", [False, True])
@pytest.mark.parametrize("length", ["said", "chunked", "none"])
@pytest.mark.parametrize("etags", [['"one"'], []])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_stream_goes_on_where_it_was(files, ranges, etags, length, softly):
    # Without ranges each answer begins anew, so a later cut must come later to be of any use.
    cuts = [100_001, 50_000, 0] if ranges else [100_001, 200_000, 60_000]
    url = files.url("a", DATA, cuts=cuts, ranges=ranges, etags=etags, length=length, softly=softly)
    assert read(url) == DATA
    first, *others = files.gets("a")
    assert first == ""
    assert others
    if ranges:
        starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in others]
        assert starts == sorted(starts)
        assert starts[0] > 50_000, "it does not begin anew"


def test_what_is_read_twice_is_little(files):
    read(files.url("a", DATA, cuts=[200_000], softly=True))
    (start,) = (int(r[6:-1]) for r in files.gets("a")[1:])
    assert 200_000 - start < 100_000, "a block of the library's, and the overlap"


@pytest.mark.parametrize(
    "lie", [{"says": 0}, {"says": 7}, {"sends": 0}, {"sends": 1000}, {"says": 0, "sends": 0}]
)
def test_a_lying_range_is_not_believed(files, caplog, lie):
    assert read(files.url("a", DATA, cuts=[100_001], **lie)) == DATA
    assert files.gets("a")[-1] == "", "it is read from its beginning"
    assert "answers a range from byte" in caplog.text


def test_another_etag_between_two_pieces_is_refused(files):
    url = files.url("a", DATA, cuts=[100_001], etags=['"one"', '"two"'])
    with pytest.raises(
        StreamError, match=r'another file now than .* \(ETag "one".*"two".*Run agai'
    ):
        read(url)


@pytest.mark.parametrize("ranges", [True, False])
def test_other_contents_without_any_etag_are_refused(files, ranges):
    changed = bytes(100) + DATA[100:90_000] + bytes(10_000) + DATA[100_000:]
    url = files.url("a", DATA, cuts=[100_001], etags=[], ranges=ranges)
    with HttpStream(url, url) as stream, io.BufferedReader(stream) as file:
        file.read(10)
        files.files["/a"].data = changed
        with pytest.raises(StreamError, match="another file now"):
            file.read()


def test_a_shorter_file_and_another_date_are_refused(files):
    url = files.url("a", DATA, cuts=[100_001], etags=[])
    with HttpStream(url, url) as stream, io.BufferedReader(stream) as file:
        file.read(10)
        files.files["/a"].data = DATA[:100]
        with pytest.raises(StreamError, match=r"another file now.*\(400,000 bytes then, 100 bytes"):
            file.read()
    url = files.url("b", DATA, cuts=[100_001], etags=[], modified="Tue, 01 Dec 2026 00:00:00 GMT")
    with HttpStream(url, url) as stream, io.BufferedReader(stream) as file:
        file.read(10)
        files.files["/b"].modified = "Wed, 02 Dec 2026 00:00:00 GMT"
        with pytest.raises(StreamError, match="another file now"):
            file.read()


def test_a_server_that_ails_is_asked_again_and_one_that_refuses_is_not(files, caplog):
    assert read(files.url("a", DATA, statuses=[503, 429, 500])) == DATA
    assert caplog.text.count("trying again") == 3
    url = files.url("b", DATA, statuses=[403] * 9)
    with pytest.raises(StreamError, match=r"/b at byte 0: the server says 403 Forbidden\. Mend"):
        read(url)
    assert len(files.gets("b")) == 1


def test_tries_end_with_address_byte_and_remedy(files):
    url = files.url("a", DATA, cuts=[100_000] + [0] * 9)
    with HttpStream(url, url) as stream, io.BufferedReader(stream) as file:
        assert file.read(50_000) == DATA[:50_000]
        said = r"cannot read .*/a at byte [\d,]+: .* \(5 tries in vain\).*run again: finished"
        with pytest.raises(StreamError, match=said):
            file.read()
    assert len(files.gets("a")) == 5
    with pytest.raises(StreamError, match=r"at byte 0: .*refused.*5 tries"):
        read("http://127.0.0.1:9/a")


def test_progress_forgets_what_was_in_vain(files, monkeypatch):
    monkeypatch.setattr(http_stream, "_PROGRESS", 20_000)
    assert read(files.url("a", DATA, cuts=[60_000] * 7)) == DATA
    assert len(files.gets("a")) > 5


def test_an_address_that_is_none_is_not_tried_again(files):
    for url in ("ftp://127.0.0.1/a", "http://[::/a", files.url("loop")):
        if url.endswith("loop"):
            files.url("loop", b"", statuses=[302] * 50)  # without a place to go to
        with pytest.raises(StreamError, match=r"mend download\.paths|Mend download\.paths"):
            read(url)


def test_a_body_that_is_sent_compressed_is_refused_unless_the_file_is(files):
    squeezed = gzip.compress(DATA)
    with pytest.raises(StreamError, match="is sent as gzip"):
        read(files.url("a.tar", squeezed, more={"Content-Encoding": "gzip"}))
    more = {"Content-Encoding": "x-gzip"}
    assert read(files.url("a.tar.gz", squeezed, cuts=[1000], more=more)) == squeezed


def test_a_version_is_asked_for_without_the_bytes(files):
    def version(url):
        with HttpStream(url, url) as stream:
            return stream.version()

    found = version(files.url("a", DATA))
    assert (found.etag, found.size) == ('"one"', 400_000)
    assert files.asked == [("HEAD", "/a", "")]
    with pytest.raises(StreamError, match="404"):
        version(files.url("nothing"))
    with pytest.raises(StreamError, match="3 tries in vain"):
        version("http://127.0.0.1:9/a")
