"""Generated input of every kind that users and the web send: counted, never raised, never lost.

``GILL_EXAMPLES=20000 pytest tests/data/test_hostile_input.py`` is the long run of
docs/reliability.md: other examples each time, where the suite repeats the same few.
"""

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hostile import encoded, get, random_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.benchmarks.partiprompts import VotesError, read_votes
from data.benchmarks.visdial import read_visdial
from data.benchmarks.vist import read_vist
from data.download.addresses import as_sent, normalise
from data.download.fetch_errors import FetchError, retry_seconds
from data.download.image_codec import process
from data.download.opt_out import AGENT, opts_out, robots_rules
from data.download.settings import ImageRules
from data.io.image_decoder import ImageError, decode
from data.sources.base import Pair, storable
from data.sources.captioned_urls import CaptionedUrls
from data.sources.webdataset import TarFiles

EXAMPLES = int(os.environ.get("GILL_EXAMPLES", "0"))
generated = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 12), st.integers(), st.floats(), ANY_TEXT,
    st.sampled_from(["", " ", "a", "\ud800", "0", "9" * 30, [], {}, [[]], {"a": None}]),
)  # fmt: skip
TREES = st.recursive(VALUES, lambda t: st.lists(t, max_size=3) | st.dictionaries(ANY_TEXT, t))


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def edited(data, edits):
    """Bytes after some edits: (place in 0 to 1, bytes that take the place of as many or fewer)."""
    made = bytearray(data)
    for place, new, removed in edits:
        at = int(place * len(made))
        made[at : at + removed] = new
    return bytes(made)


EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8), st.integers(0, 64)), max_size=4)


# What servers answer.


@generated
@given(ANY_TEXT)
def test_any_text_is_an_address_or_a_bad_one(text):
    try:
        url = str(normalise(text))
    except FetchError as error:
        reason = error.reason
    else:
        reason = "bad_url"
        assert url.isascii()
        assert str(normalise(url)) == url, "an address has one spelling"
    assert reason == "bad_url"


@generated
@given(st.binary(max_size=200))
def test_any_header_has_an_outcome(data):
    text = data.decode("utf-8", "surrogateescape")
    assert retry_seconds(text) >= 0
    assert opts_out([text]) is None or isinstance(opts_out([text]), str)
    assert as_sent(text).isascii() or storable(text)


@generated
@given(st.lists(st.sampled_from(["Disallow: ", "Allow: ", "User-agent: ", "Crawl-delay: ", ""])),
       st.lists(ANY_TEXT))  # fmt: skip
def test_any_robots_txt_has_rules(fields, values):
    lines = [field + value for field, value in zip(fields, values, strict=False)]
    rules = robots_rules("\n".join(["User-agent: *", "Disallow: /private", *lines]))
    assert rules.can_fetch(AGENT, "http://x.org/private") in {True, False}


HEADERS = ("Location", "Retry-After", "Content-Encoding", "X-Robots-Tag", "Content-Type", "X-Any")


@generated
@given(
    status=st.sampled_from([200, 302, 404, 429, 503]),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=40)), max_size=4),
)
def test_any_answer_of_a_server_is_a_body_or_a_reason(server, status, headers):
    lines = [f"{k}: ".encode() + v.translate(None, b"\r\n\0") for k, v in headers]
    head = b"HTTP/1.1 %d X\r\nContent-Length: 1\r\n" % status
    server.pages.clear()
    url = server.url("a", head + b"".join(line + b"\r\n" for line in lines) + b"\r\nx")
    (answer,) = get(url, longest_pause=1.0, deadline=20.0)
    assert answer == b"x" or isinstance(answer, FetchError), repr(answer)
    if isinstance(answer, FetchError):
        answer.detail.encode("utf-8", "surrogateescape")


# What images are made of.


@generated
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]), st.binary(max_size=80), EDITS)
def test_any_bytes_are_an_image_or_refused(form, exif, edits):
    options = {"exif": b"Exif\0\0" + exif} if form in {"JPEG", "WEBP"} else {}
    data = edited(encoded(random_image(48, 40), form, **options), edits)
    made = []
    for road in (lambda: decode(data).size, lambda: _codec_size(data)):
        try:
            made.append(road())
        except ImageError as error:
            made.append(error.reason)
    if not edits:
        assert made[0] == made[1], "whatever is noted in it, the pixels are whole"


def _codec_size(data):
    made = process(data, ImageRules(resize="bound", size=512, smallest=1, widest=1e5))
    return made.width, made.height


# What lists and archives hold.


JPEG = encoded(random_image(40, 40))


def tar_of(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


WHOLE = tar_of([m for k in range(6) for m in ((f"{k}.jpg", JPEG), (f"{k}.txt", b"caption"))])


def rows_of(folder, data):
    (folder / "x.tar").write_bytes(data)
    rows = list(TarFiles({"train": str(folder / "x.tar")}).pairs("train"))
    assert len({row.key for row in rows}) == len(rows), "no key is there twice"
    for row in rows:
        assert storable(row.key + row.caption)
        assert storable(row.origin if isinstance(row, Pair) else row.place)
    return rows


@generated
@given(EDITS)
def test_no_edit_of_a_tar_loses_an_example_in_silence(folder, edits):
    rows = rows_of(folder, edited(WHOLE, edits))
    if any(new.strip(b"\0") or removed % 512 for _, new, removed in edits) or not edits:
        pairs = sum(isinstance(row, Pair) for row in rows)
        assert pairs >= 6 or len(rows) > pairs


@generated
@given(st.floats(0, 0.999), st.integers(0, 7))
def test_no_bit_of_a_tar_loses_an_example_in_silence(folder, place, bit):
    data = bytearray(WHOLE)
    data[int(place * len(data))] ^= 1 << bit
    rows = rows_of(folder, bytes(data))
    pairs = sum(isinstance(row, Pair) for row in rows)
    assert pairs == 6 or len(rows) > pairs


@generated
@given(st.lists(st.tuples(ANY_TEXT, TREES), max_size=4))
def test_any_json_beside_an_image_is_a_caption_or_a_reason(folder, examples):
    members = []
    for name, tree in examples:
        stem = name.encode("utf-8", "replace").decode().replace("\0", "").strip("./") or "x"
        members += [(f"{stem}.jpg", JPEG), (f"{stem}.json", json.dumps(tree).encode())]
    rows_of(folder, tar_of(members))


@generated
@given(st.binary(max_size=400))
def test_every_line_of_any_list_is_a_row(folder, data):
    (folder / "l.tsv").write_bytes(data)
    rows = list(CaptionedUrls({"train": str(folder / "l.tsv")}).pairs("train"))
    assert len(rows) == data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))


# What files of benchmarks hold.


@pytest.fixture(scope="module")
def images(folder):
    (folder / "images").mkdir()
    for number in range(5):
        (folder / "images" / f"{number}.jpg").write_bytes(JPEG)
    return folder / "images"


def usable(cases):
    for case in cases:
        for pieces in case.contexts.values():
            assert all(piece.strip() for piece in pieces if isinstance(piece, str))


STORY_FIELDS = ("story_id", "photo_flickr_id", "worker_arranged_photo_order", "text")


@generated
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(STORY_FIELDS), VALUES), max_size=3))
def test_any_value_of_a_story_costs_that_story_alone(folder, images, changes):
    def story(name):
        return [dict(zip(STORY_FIELDS, (name, str(i), i, f"text {i}"), strict=True))
                for i in range(5)]  # fmt: skip

    odd = story("odd")
    for at, field, value in changes:
        odd[at][field] = value if value != "good" else None
    (folder / "sis.json").write_text(json.dumps({"annotations": [*odd, *story("good")]}))
    found = read_vist(folder / "sis.json", images)
    usable(found.cases)
    assert "good" in {case.key for case in found.cases}
    assert len(found.cases) + sum(found.skipped.values()) >= 2


@generated
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["question", "answer"]), VALUES)),
       VALUES)  # fmt: skip
def test_any_value_of_a_dialogue_costs_that_dialogue_alone(folder, images, changes, number):
    def dialogue(image):
        turns = [{"question": i % 3, "answer": i % 2} for i in range(10)]
        return {"image_id": image, "dialog": turns}

    odd = dialogue(number)
    for at, field, value in changes:
        odd["dialog"][at][field] = value
    data = {"questions": ["a", "b", "c", " "], "answers": ["y", "n", None]}
    whole = {"data": {**data, "dialogs": [odd, dialogue(3)]}}
    (folder / "visdial.json").write_text(json.dumps(whole))
    found = read_visdial(folder / "visdial.json", images)
    usable(found.cases)
    assert found.cases[-1].key == "3"
    assert len(found.cases) + sum(found.skipped.values()) == 2


@generated
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_line_of_votes_costs_no_other(folder, lines):
    good = b"a prompt of its own\tA\tret,ret,ret,ret,gen"
    path = folder / "votes.tsv"
    path.write_bytes(b"\n".join([b"Prompt\tCategory\tDecisions", *lines, good]))
    try:
        found = read_votes(path)
    except VotesError as error:
        pytest.fail(str(error))
    assert found.prompts[-1].prompt == "a prompt of its own"
