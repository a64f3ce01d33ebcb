"""Stories and dialogues made from captions of the data."""

from data.benchmarks.contexts import ContextImage
from data.benchmarks.synthetic_contexts import described, dialogues, stories


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
