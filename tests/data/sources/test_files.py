"""Lists of captions: odd lines are counted, identity is what the files hold."""

import pytest

from data.sources.base import SourceError, SourceSettings
from data.sources.captioned_urls import CaptionedUrls
from data.sources.files import braced, limited, relative_names, sliced
from data.sources.huggingface import HuggingFaceDataset
from data.sources.registry import SOURCES
from data.sources.webdataset import TarFiles


def test_rows_are_cut_out_of_a_list(tmp_path):
    path = tmp_path / "l.tsv"
    path.write_bytes(b"".join(b"%d\tu\n" % i for i in range(10)))
    source = CaptionedUrls({"a": f"{path}[2:5]", "b": f"{path}[5:]"}, limit=4)
    assert [p.caption for p in source.pairs("a")] == ["2", "3", "4"]
    assert [p.caption for p in source.pairs("b")] == ["5", "6", "7", "8"]
    assert sliced("a.tsv[:3]") == ("a.tsv", (0, 3))
    assert limited(2, None, None) is None
    assert limited(2, 9, 3) == 5


def test_identity_is_contents_and_not_places(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.tar").write_bytes(b"one")
    paths = [{"train": str(tmp_path / n / "*.tar")} for n in ("a", "b")]
    assert TarFiles(paths[0]).identity() == TarFiles(paths[1]).identity()
    (tmp_path / "b" / "0.tar").write_bytes(b"two")
    assert TarFiles(paths[0]).identity() != TarFiles(paths[1]).identity()
    one = TarFiles(paths[0]).identity()
    (tmp_path / "a" / "0.tar").rename(tmp_path / "a" / "1.tar")
    assert TarFiles(paths[0]).identity() != one, "keys are made of names"
    assert (
        CaptionedUrls({"train": f"{__file__}[:3]"}).identity()
        != CaptionedUrls({"train": f"{__file__}[:4]"}).identity()
    )


def test_a_list_is_the_same_under_another_name_and_a_tar_is_not(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"a\tu\n")
    one, two = ({"train": str(tmp_path / name)} for name in ("a", "b"))
    assert CaptionedUrls(one).identity() == CaptionedUrls(two).identity()
    assert TarFiles(one).identity() != TarFiles(two).identity()


def test_braces_and_brackets_in_paths(tmp_path):
    assert braced("a-{000..002}.tar") == ["a-000.tar", "a-001.tar", "a-002.tar"]
    assert braced("{a,b}/{1..2}") == ["a/1", "a/2", "b/1", "b/2"]
    for name in ("x-0.tsv", "x-1.tsv", "y[1].tsv", "z{1}.tsv"):
        (tmp_path / name).write_bytes(name.encode() + b"\tu\n")

    def captions(pattern):
        source = CaptionedUrls({"train": f"{tmp_path}/{pattern}"})
        return [pair.caption for pair in source.pairs("train")]

    assert captions("x-{0..1}.tsv") == ["x-0.tsv", "x-1.tsv"]
    assert captions("x-[01].tsv") == ["x-0.tsv", "x-1.tsv"]
    assert captions("y[1].tsv") == ["y[1].tsv"]
    assert captions("z{1}.tsv") == ["z{1}.tsv"]
    with pytest.raises(SourceError, match=r"there is no .*x-2.tsv, which .*\{0\.\.2\}"):
        captions("x-{0..2}.tsv")
    with pytest.raises(SourceError, match="more than"):
        captions("x-{0..99999999}.tsv")
    with pytest.raises(SourceError, match=r"cannot list nosuch://x of the split 'train'.*mend"):
        list(CaptionedUrls({"train": "nosuch://x"}).pairs("train"))


def test_names_are_what_tells_files_apart():
    assert relative_names(["/x/a/0.tar", "/x/b/0.tar"]) == ["a/0.tar", "b/0.tar"]
    assert relative_names(["/x/0.tar", "/x/1.tar"]) == ["0.tar", "1.tar"]
    assert relative_names(["0.tar"]) == ["0.tar"]


def test_every_source_is_made_from_its_settings():
    given = SourceSettings(
        paths={"train": "t"},
        limit=7,
        images="images",
        scenes=60,
        dataset="set",
        columns={"caption": "c", "url": "u"},
        revision="abc",
    )
    made = {name: make(given) for name, make in SOURCES.items()}
    assert {source.limit for source in made.values()} == {7}
    assert made["folder"].images == "images"
    assert made["huggingface"] == HuggingFaceDataset("set", given.columns, {"train": "t"}, "abc", 7)
    assert {n for n, source in made.items() if source.remote} == {"cc3m", "huggingface"}
    assert made["webdataset"].paths == {"train": "t"}
    assert made["scenes"].scenes == 60
