"""VIST: stories are whole or counted; no neighbours are joined over a hole."""

import json
import os

import pytest
from PIL import Image

from data.benchmarks.contexts import ContextError
from data.benchmarks.vist import read_vist


def image(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def sentence(story, photo, order, text):
    """One annotation as in VIST's story-in-sequence files: a list of one entry."""
    return [
        {
            "original_text": text.capitalize(), "album_id": "44277", "photo_flickr_id": photo,
            "setting": "first-2-pick-and-tell", "worker_id": "W1", "story_id": story,
            "tier": "story-in-sequence", "worker_arranged_photo_order": order, "text": text,
            "storylet_id": f"{story}{order}",
        }
    ]  # fmt: skip


@pytest.fixture
def vist(tmp_path):
    """Four stories: whole, without an image, with a broken image, of four sentences."""
    folder = tmp_path / "images"
    annotations = []
    for story, photos in (("30355", "abcde"), ("30356", "abcdx"), ("30357", "abcdy")):
        rows = [sentence(story, f"10{p}", i, f"{story} {p} .") for i, p in enumerate(photos)]
        annotations += [rows[2], rows[0], rows[1], rows[4], rows[3]]  # the order is in the rows
    annotations += [sentence("30358", "10a", i, "short .") for i in range(4)]
    for p in "abcde":
        image(folder / "val" / f"10{p}.jpg")
    (folder / "val" / "10y.png").write_bytes(b"no image")
    content = {"images": [{"id": "10a", "url_o": "https://example.org/10a.jpg"}], "albums": [],
               "info": {}, "type": "vist", "annotations": annotations}  # fmt: skip
    path = tmp_path / "val.story-in-sequence.json"
    path.write_text(json.dumps(content))
    return path, folder


def test_vist_stories_and_what_is_skipped(vist):
    found = read_vist(*vist)
    assert found.skipped == {"image: missing": 1, "image: not_image:text": 1, "not 5 sentences": 1}
    (case,) = found.cases
    assert case.key == "30355"
    assert case.target.path.name == "10e.jpg"
    texts = tuple(f"30355 {p} ." for p in "abcde")
    assert case.contexts["1 caption"] == (texts[-1],)
    assert case.contexts["5 captions"] == texts
    interleaved = case.contexts["5 captions, 4 images"]
    assert [p if isinstance(p, str) else p.name for p in interleaved] == [
        "10a", texts[0], "10b", texts[1], "10c", texts[2], "10d", texts[3], texts[4],
    ]  # fmt: skip
    assert interleaved[0].open().size == (8, 6)


def test_vist_stops_at_the_limit(vist):
    assert read_vist(*vist, limit=1).skipped == {}


def test_other_files_are_refused(vist, tmp_path):
    path, folder = vist
    (tmp_path / "other.json").write_text('{"images": []}')
    with pytest.raises(ContextError, match="no list `annotations`"):
        read_vist(tmp_path / "other.json", folder)
    (tmp_path / "dii.json").write_text('{"annotations": [[{"text": "a", "photo_flickr_id": "1"}]]}')
    with pytest.raises(ContextError, match=r"no entry .* names a story; .* lacks \['story_id'"):
        read_vist(tmp_path / "dii.json", folder)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ContextError, match="is no JSON"):
        read_vist(tmp_path / "broken.json", folder)
    with pytest.raises(ContextError, match="cannot read the stories of VIST"):
        read_vist(tmp_path / "absent.json", folder)
    with pytest.raises(ContextError, match="there are no images in"):
        read_vist(path, tmp_path / "absent")
    path.write_text('{"annotations": []}')
    with pytest.raises(ContextError, match="no entry"):
        read_vist(path, folder)


def told(tmp_path, *stories):
    """What is read of some stories, each a list of entries, and a whole one."""
    for p in "abcde":
        image(tmp_path / "images" / f"{p}.jpg")
    good = [sentence("good", p, i, f"text {p}") for i, p in enumerate("abcde")]
    entries = [entry for story in (*stories, good) for entry in story]
    (tmp_path / "sis.json").write_text(json.dumps({"annotations": entries}))
    found = read_vist(tmp_path / "sis.json", tmp_path / "images")
    assert [case.key for case in found.cases] == ["good"], "its neighbours cost it nothing"
    return found


def story(number, **changes):
    """A story whose third sentence is changed; a value of ``...`` takes the field away."""
    made = [sentence(number, p, i, f"text {p}") for i, p in enumerate("abcde")]
    made[2][0] = {k: v for k, v in {**made[2][0], **changes}.items() if v is not ...}
    return made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": ""}, "blank sentence"), ({"text": " \n\u3000"}, "blank sentence"),
        ({"text": None}, "blank sentence"), ({"text": ["a"]}, "blank sentence"),
        ({"text": "lone \ud800"}, "bad text"), ({"text": ...}, "incomplete sentence"),
        ({"worker_arranged_photo_order": None}, "bad order"),
        ({"worker_arranged_photo_order": -1}, "bad order"),
        ({"worker_arranged_photo_order": True}, "bad order"),
        ({"worker_arranged_photo_order": 2.5}, "bad order"),
        ({"worker_arranged_photo_order": "third"}, "bad order"),
        ({"worker_arranged_photo_order": 7}, "orders with a hole"),
        ({"worker_arranged_photo_order": 1}, "orders with a hole"),
        ({"photo_flickr_id": None}, "image: missing"),
        ({"photo_flickr_id": {"a": 1}}, "image: missing"),
    ],
)  # fmt: skip
def test_a_hole_costs_its_story_alone(tmp_path, changes, reason):
    found = told(tmp_path, story("odd", **changes))
    assert found.skipped == {reason: 1}
    (sample,) = found.samples
    assert (sample.reason, "story odd of" in sample.place) == (reason, True)


@pytest.mark.parametrize("number", [None, "", ["x"], True, ...])
def test_an_entry_of_no_story_is_counted_and_joined_to_none(tmp_path, number):
    odd = story("odd")
    odd[1][0].pop("story_id")
    if number is not ...:
        odd[1][0]["story_id"] = number
    assert told(tmp_path, odd, [None, 3, []]).skipped == {"no story": 4, "not 5 sentences": 1}


def test_orders_may_be_texts_and_begin_at_one(tmp_path):
    made = [sentence("odd", p, str(i + 1), f"text {p}") for i, p in enumerate("abcde")]
    for p in "abcde":
        image(tmp_path / "images" / f"{p}.jpg")
    (tmp_path / "sis.json").write_text(json.dumps({"annotations": made[::-1]}))
    (case,) = read_vist(tmp_path / "sis.json", tmp_path / "images").cases
    assert case.contexts["5 captions"] == tuple(f"text {p}" for p in "abcde")


def test_what_nobody_expected_of_a_story_is_counted(tmp_path, monkeypatch):
    from data.benchmarks import vist as module

    usable = module.usable_image

    def odd(name, path):
        return usable(name, path) if name != "f" else os.stat("/dev/null/x")

    monkeypatch.setattr(module, "usable_image", odd)
    found = told(tmp_path, story("odd", photo_flickr_id="f"))
    assert found.skipped == {"unexpected:NotADirectoryError": 1}
    assert "story odd" in found.samples[0].place
