"""An index of a folder of one's own: what it holds, what it leaves out, going on, other weights."""

import json
import os

import pytest
import torch
from hostile import encoded
from PIL import Image

import tasks.inference.image_store as image_store
from gill.inference.results import RetrievedImage
from tasks.inference.image_store import ImageStoreError, index_folder, load_folder_index
from tasks.inference.loading import load


@pytest.fixture
def image_folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        name = f"sub/{number}.webp" if number % 2 else f"{number}.PNG"
        Image.new("RGB", (30 + number, 40), (50 * number, 90, 10)).save(folder / name)
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_a_folder_is_indexed_and_retrieved_from(trained_var, image_folder, tmp_path):
    counts = index_folder(load().engine, image_folder, tmp_path / "index")
    assert counts == {"images": 5, "not_image:text": 1}
    loaded = load(index=tmp_path / "index")
    index = loaded.engine.index
    assert sorted(index.keys) == ["0.PNG", "2.PNG", "4.PNG", "sub/1.webp", "sub/3.webp"]
    alone = loaded.engine.embed_images([loaded.image_store.image("sub/3.webp")])[0]
    stored = index.vectors[list(index.keys).index("sub/3.webp")]
    torch.testing.assert_close(alone, stored, atol=1e-5, rtol=1e-5)
    segments = loaded.engine.generate("x", image_bias=1e9, max_new_tokens=1, choice="retrieve")
    shown = next(s for s in segments if isinstance(s, RetrievedImage))
    assert shown.origin == str(image_folder / shown.key)
    assert loaded.image(shown).height == 40


def test_odd_names_links_and_files_cost_no_image(trained_var, image_folder, tmp_path, monkeypatch):
    os.symlink(image_folder / "loop.jpg", image_folder / "loop.jpg")
    os.symlink(image_folder, image_folder / "sub" / "again")
    os.symlink(image_folder / "absent.png", image_folder / "nowhere.png")
    (image_folder / "._0.PNG").write_bytes(b"a Mac's notes")
    (image_folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(form="PNG"))
    (image_folder / "odd.png").write_bytes(encoded(form="PNG"))
    opened = image_store.open_image

    def odd(path):
        return opened(path) if path.name != "odd.png" else 1 / 0

    monkeypatch.setattr(image_store, "open_image", odd)
    counts = index_folder(load().engine, image_folder, tmp_path / "index")
    expected = {"not_image:text": 1, "missing": 1, "unreadable": 1, "bad_name": 1}
    assert counts == {"images": 5, **expected, "unexpected:ZeroDivisionError": 1}


def test_a_killed_index_goes_on_and_a_changed_folder_starts_anew(
    trained_var, image_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(image_store, "_SHARD", 2)
    engine, out, made = load().engine, tmp_path / "index", []
    embed = engine.embed_images

    def stop_at_third(images):
        made.append(len(images))
        if len(made) == 3:
            raise KeyboardInterrupt
        return embed(images)

    monkeypatch.setattr(engine, "embed_images", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        index_folder(engine, image_folder, out)
    with pytest.raises(ImageStoreError, match="no finished index"):
        load_folder_index(engine, out)
    assert index_folder(engine, image_folder, out) == {"images": 5, "not_image:text": 1}
    assert len(made) == 4, "two shards were kept, the third was made again"
    assert len(load_folder_index(engine, out)[0]) == 5
    (image_folder / "0.PNG").unlink()
    assert index_folder(engine, image_folder, out) == {"images": 4, "not_image:text": 1}
    assert "0.PNG" not in load_folder_index(engine, out)[0].keys


def test_folders_and_indexes_of_no_use_are_refused(trained_var, image_folder, tmp_path):
    engine = load().engine
    with pytest.raises(ImageStoreError, match="is no folder"):
        index_folder(engine, image_folder / "0.PNG", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageStoreError, match="no image files"):
        index_folder(engine, tmp_path / "empty", tmp_path / "b")
    index_folder(engine, image_folder, tmp_path / "c")
    described = json.loads((tmp_path / "c" / "index.json").read_text())
    with torch.no_grad():
        engine.model.adapters.retrieval.image.bias.add_(1)
    with pytest.raises(ImageStoreError, match=f"made with other weights .{described['made_with']}"):
        load_folder_index(engine, tmp_path / "c")


@pytest.mark.parametrize("name", ["plan.json", "embeddings/folder-00000.json"])
def test_a_damaged_record_of_an_index_means_to_make_it_again(
    trained_var, image_folder, tmp_path, name
):
    engine, out = load().engine, tmp_path / "index"
    index_folder(engine, image_folder, out)
    (out / name).write_bytes(b'{"\xff')
    assert index_folder(engine, image_folder, out) == {"images": 5, "not_image:text": 1}


def test_an_index_that_lost_a_shard_is_refused(trained_var, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(image_store, "_SHARD", 2)
    engine, out = load().engine, tmp_path / "index"
    index_folder(engine, image_folder, out)
    (out / "embeddings" / "folder-00001.parquet").unlink()
    with pytest.raises(ImageStoreError, match=r"has \d images, made were 5; make it again"):
        load_folder_index(engine, out)


def test_files_of_a_folder_and_what_is_said_of_each(image_folder):
    """Without a model: which files are looked at, and what becomes of the odd ones."""
    os.symlink(image_folder / "loop.jpg", image_folder / "loop.jpg")
    os.symlink(image_folder, image_folder / "sub" / "again")
    os.symlink(image_folder / "absent.png", image_folder / "nowhere.png")
    os.mkfifo(image_folder / "pipe.png")
    (image_folder / "._0.PNG").write_bytes(b"a Mac's notes")
    (image_folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(form="PNG"))
    files = image_store._files(image_folder)
    assert all(image_store._stamp(file) for file in files)
    outcomes = {}
    for file in files:
        found = image_store._opened(file)
        outcomes[os.fsencode(file.name)] = getattr(found, "reason", "image")
    odd = {b"loop.jpg": "unreadable", b"nowhere.png": "missing", b"broken.jpg": "not_image:text"}
    odd[b"caf\xe9.png"] = "bad_name"
    images = dict.fromkeys([b"0.PNG", b"1.webp", b"2.PNG", b"3.webp", b"4.PNG"], "image")
    assert outcomes == {**odd, **images}
