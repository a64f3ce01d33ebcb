"""The page of the pairs says what is there, names the first leaks, and takes data for text."""

from tasks.download.pairs.page import page

SPREAD = {
    "mean": 8.25,
    "p1": 1.0,
    "p5": 2.0,
    "p25": 4.0,
    "p50": 8.0,
    "p75": 9.0,
    "p95": 20.0,
    "p99": 30.0,
}


def report(**changes):
    split = {
        "pairs": 1200, "sampled": 1000, "words": SPREAD, "short_side": {}, "similarity": SPREAD,
        "similarity_histogram": {"0.20": 900, "-0.05": 100},
        "scripts": {"LATIN": 1200}, "hosts": {},
    }  # fmt: skip
    return {
        "splits": {"train": split},
        "dropped": {},
        "similarity": "cosine",
        "leaks": [],
        "comes_again": {"bytes": {"what": "The same bytes", "counts": {}, "named": []}},
        **changes,
    }


def test_what_is_not_there_is_said_so():
    said = page(report())
    assert "Not trained on: none." in said
    assert "Sample: train 1,000 pairs." in said
    assert "<p>0, by one measure or several.</p>" in said
    assert "The same bytes: none." in said
    assert said.count("<table>") == 2
    assert said.index("<td>-0.05</td><td>100</td>") < said.index("<td>0.20</td><td>900</td>")
    assert "8.250" in said
    assert "short_side" not in said


def test_the_first_leaks_are_named_and_the_others_counted():
    leaks = [[f"test/{n}", f"train/{n}", "hash"] for n in range(70)]
    named = [["test/0", "train/0", 3.0]]
    again = {"hash": {"what": "Alike", "counts": {"test in train": 70}, "named": named}}
    said = page(report(leaks=leaks, comes_again=again, dropped={"low_similarity": 1234}))
    assert "70, by one measure or several; the first 50 are named here, all in pairs.json." in said
    assert "<td>test/49</td>" in said
    assert "<td>test/50</td>" not in said
    assert "Alike: test in train 70." in said
    assert "Not trained on: low_similarity 1,234." in said


def test_what_comes_from_data_is_text():
    evil = "<script>alert(1)</script>"
    hosts = {**report()["splits"]["train"], "hosts": {evil: 3}}
    said = page(report(splits={"train": hosts}, leaks=[[evil, evil, "bytes"]]))
    assert "<script>" not in said
    assert said.count("&lt;script&gt;") == 3
