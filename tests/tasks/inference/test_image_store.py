"""An index of a folder of one's own: what it holds, what it leaves out, going on, other weights."""

import json

import pytest
import torch
from PIL import Image

import tasks.inference.image_store as album
from gill.inference.engine import RetrievedImage
from tasks.inference.image_store import AlbumError, index_folder, load_folder_index
from tasks.inference.loading import load


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(5):
        name = f"sub/{number}.webp" if number % 2 else f"{number}.PNG"
        Image.new("RGB", (30 + number, 40), (50 * number, 90, 10)).save(folder / name)
    (folder / "broken.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not asked for")
    return folder


def test_a_folder_is_indexed_and_retrieved_from(trained_var, pictures, tmp_path):
    counts = index_folder(load().gill, pictures, tmp_path / "index")
    assert counts == {"pictures": 5, "not_image": 1}
    loaded = load(index=tmp_path / "index")
    index = loaded.gill.index
    assert sorted(index.keys) == ["0.PNG", "2.PNG", "4.PNG", "sub/1.webp", "sub/3.webp"]
    alone = loaded.gill.embed_pictures([loaded.album.picture("sub/3.webp")])[0]
    stored = index.vectors[list(index.keys).index("sub/3.webp")]
    torch.testing.assert_close(alone, stored, atol=1e-5, rtol=1e-5)
    segments = loaded.gill.generate("x", image_bias=1e9, max_new_tokens=1, choice="retrieve")
    shown = next(s for s in segments if isinstance(s, RetrievedImage))
    assert shown.origin == str(pictures / shown.key)
    assert loaded.picture(shown).height == 40


def test_a_killed_index_goes_on_and_a_changed_folder_starts_anew(
    trained_var, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(album, "_SHARD", 2)
    gill, out, made = load().gill, tmp_path / "index", []
    embed = gill.embed_pictures

    def stop_at_third(images):
        made.append(len(images))
        if len(made) == 3:
            raise KeyboardInterrupt
        return embed(images)

    monkeypatch.setattr(gill, "embed_pictures", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        index_folder(gill, pictures, out)
    with pytest.raises(AlbumError, match="no finished index"):
        load_folder_index(gill, out)
    assert index_folder(gill, pictures, out) == {"pictures": 5, "not_image": 1}
    assert len(made) == 4, "two shards were kept, the third was made again"
    assert len(load_folder_index(gill, out)[0]) == 5
    (pictures / "0.PNG").unlink()
    assert index_folder(gill, pictures, out) == {"pictures": 4, "not_image": 1}
    assert "0.PNG" not in load_folder_index(gill, out)[0].keys


def test_folders_and_indexes_of_no_use_are_refused(trained_var, pictures, tmp_path):
    gill = load().gill
    with pytest.raises(AlbumError, match="is no folder"):
        index_folder(gill, pictures / "0.PNG", tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlbumError, match="no picture files"):
        index_folder(gill, tmp_path / "empty", tmp_path / "b")
    index_folder(gill, pictures, tmp_path / "c")
    described = json.loads((tmp_path / "c" / "index.json").read_text())
    with torch.no_grad():
        gill.model.adapters.retrieval.image.bias.add_(1)
    with pytest.raises(AlbumError, match=f"made with other weights .{described['made_with']}"):
        load_folder_index(gill, tmp_path / "c")
