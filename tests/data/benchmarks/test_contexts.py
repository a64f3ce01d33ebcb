"""Official VIST and VisDial files made by hand, and the study made from captions."""

import io
import json

import pytest
from PIL import Image

from data.benchmarks.contexts import ContextError, ContextImage, story_contexts, unusable
from data.benchmarks.synthetic_contexts import described, dialogues, stories
from data.benchmarks.visdial import dialogue_text, read_visdial
from data.benchmarks.vist import read_vist
from data.io.image_decoder import ImageError


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
    with pytest.raises(ContextError, match=r"annotations\[0\] .* lacks \['story_id'"):
        read_vist(tmp_path / "dii.json", folder)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ContextError, match="is no JSON"):
        read_vist(tmp_path / "broken.json", folder)
    with pytest.raises(ContextError, match="cannot read the stories of VIST"):
        read_vist(tmp_path / "absent.json", folder)
    with pytest.raises(ContextError, match="there are no images in"):
        read_vist(path, tmp_path / "absent")


@pytest.fixture
def visdial(tmp_path):
    """Three dialogues: whole, without its image, and one whose last round has no answer."""
    questions = [f"is there thing {i}" for i in range(10)]
    answers = ["yes", "no"]
    rounds = [{"question": i, "answer": i % 2, "answer_options": [0, 1]} for i in range(10)]
    cut = [*rounds[:9], {"question": 9}]
    dialogs = [
        {"image_id": 284024, "caption": "a room", "dialog": rounds},
        {"image_id": 7, "caption": "a dog", "dialog": rounds},
        {"image_id": 284024, "caption": "a room", "dialog": cut},
    ]
    data = {"questions": questions, "answers": answers, "dialogs": dialogs}
    path = tmp_path / "visdial_1.0_val.json"
    path.write_text(json.dumps({"version": "1.0", "split": "val2018", "data": data}))
    image(tmp_path / "coco" / "VisualDialog_val2018_000000284024.jpg")
    return path, tmp_path / "coco"


def test_visdial_dialogues_and_what_is_skipped(visdial):
    found = read_visdial(*visdial)
    assert found.skipped == {"image: missing": 1, "too few answered rounds": 1}
    (case,) = found.cases
    assert list(case.contexts) == ["1 round", "5 rounds", "10 rounds"]
    assert case.contexts["1 round"] == ("Q: is there thing 0?\nA: yes",)
    (whole,) = case.contexts["10 rounds"]
    assert whole.split("\n")[2:4] == ["Q: is there thing 1?", "A: no"]
    assert len(whole.split("\n")) == 20


def test_questions_end_with_one_mark():
    assert dialogue_text([("is it red ?", " no ")]) == "Q: is it red?\nA: no"


def test_other_dialogue_files_are_refused(visdial, tmp_path):
    path, folder = visdial
    (tmp_path / "old.json").write_text('{"data": {"questions": [], "answers": []}}')
    with pytest.raises(ContextError, match=r"no list data\.dialogs"):
        read_visdial(tmp_path / "old.json", folder)
    content = json.loads(path.read_text())
    content["data"]["dialogs"][0]["dialog"][3]["answer"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(ContextError, match=r"data\.dialogs\[0\] .* not as in VisDial 1\.0"):
        read_visdial(path, folder)


def test_images_that_cannot_be_used(tmp_path):
    held = io.BytesIO()
    Image.effect_noise((20, 20), 60).save(held, "PNG")
    whole = ContextImage("whole", data=held.getvalue())
    assert whole.open().mode == "RGB"
    assert unusable([whole]) is None
    assert unusable([whole, None]) == "image: missing"
    # The header is whole and the pixels are cut.
    assert unusable([whole, ContextImage("cut", data=held.getvalue()[:-30])]) == "image: truncated"
    huge = Image.new("1", (8000, 8000))
    huge.save(tmp_path / "huge.png")
    assert unusable([ContextImage("huge", tmp_path / "huge.png")]) == "image: too_many_pixels"
    with pytest.raises(ImageError, match="not_image:text"):
        ContextImage("none", data=b"none").open()


def items(style, theme, names, keywords="x"):
    return [described(f"{style}/{n}", f"{n}, {keywords}, {style} of {theme}", b"") for n in names]


def test_captions_are_taken_apart():
    found = described("k", "cocktail glass, alcohol, bar, 3d emoji of drink", b"")
    assert (found.title, found.keywords) == ("cocktail glass", ("alcohol", "bar"))
    assert (found.style, found.theme) == ("3d emoji", "drink")
    assert described("k", "brown leaves, clip art", b"").theme == ""
    assert described("k", "a photograph of a dog", b"") == "no style"


def test_stories_share_a_theme_or_else_a_style_and_do_not_tell_it():
    fruit = items("emoji", "fruit", [f"fruit {i}" for i in range(6)])
    mixed = [*items("emoji", "tool", ["saw"]), *items("clip art", "sea", ["ship", "fish"])]
    found = stories([*fruit, *mixed], count=100)
    assert found.skipped == {"fewer than five images of its style": 2}
    assert len(found.cases) == 7
    for case in found.cases:
        texts, interleaved = case.contexts["5 captions"], case.contexts["5 captions, 4 images"]
        shown = [p.name for p in interleaved if isinstance(p, ContextImage)]
        assert len(shown) == 4
        assert case.target.name not in shown
        assert {n.partition("/")[0] for n in [case.key, *shown]} == {"emoji"}
        assert not any("emoji" in t for t in texts)
        assert texts[-1] == case.key.partition("/")[2]
        if case.key != "emoji/saw":
            assert all("fruit" in t for t in texts)
    again = stories([*fruit, *mixed], count=100)
    assert again == found
    assert stories([*fruit, *mixed], count=100, seed=1) != found
    assert len(stories(fruit, count=2).cases) == 2


def test_dialogues_tell_one_more_attribute_each_round():
    found = dialogues([*items("emoji", "fruit", ["plum"], "blue, sweet"),
                       described("c", "leaf, green, clip art", b""),
                       described("d", "pear, emoji of fruit", b"")], count=9)  # fmt: skip
    assert found.skipped == {"no theme": 1, "no keyword": 1}
    (case,) = found.cases
    assert list(case.contexts) == ["1 round", "2 rounds", "4 rounds"]
    answers = [line[3:] for line in case.contexts["4 rounds"][0].split("\n") if line[0] == "A"]
    assert answers == ["emoji", "fruit", "blue, sweet", "plum"]
    assert case.contexts["4 rounds"][0].startswith(case.contexts["2 rounds"][0])


def test_a_story_has_a_image_before_each_sentence_but_the_last():
    images = [ContextImage(str(i)) for i in range(3)]
    found = story_contexts(["a", "b", "c"], images)
    assert found["3 captions, 2 images"] == (images[0], "a", images[1], "b", "c")
