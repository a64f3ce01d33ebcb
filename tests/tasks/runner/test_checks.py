"""A run that cannot end well is refused before anything is fetched or computed."""

import pytest
from PIL import Image

from flows.pipeline import dag
from flows.recipes import resolve
from tasks.runner.checks import SettingsError, check_before
from tasks.runner.dag import plan
from tasks.runner.room import DiskFullError


def checked(overrides=None, only=None, force=()):
    config = resolve("tiny", overrides or {})
    stages = dag(config.schedule)
    check_before(plan(stages, config, stages.wanted(only)), only, force)


@pytest.fixture
def pairs(tmp_path):
    """A list of three pairs in the source ``folder``, as overrides but for its paths."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg")
    (tmp_path / "list.tsv").write_text("caption\timage\n" + "one\ta.jpg\n" * 3)
    return {"download.source": "folder", "download.images": str(tmp_path)}


def test_a_recipe_as_it_is_passes(var):
    checked()
    checked({"schedule": "joint"})


def test_splits_that_stages_read_must_be_given(var, pairs, tmp_path):
    path = f"{tmp_path}/list.tsv"
    with pytest.raises(ValueError, match=r"splits train and no validation and no test, which adap"):
        checked({**pairs, "download.paths": {"train": path}})
    both = {"train": f"{path}[:2]", "validation": f"{path}[2:]"}
    with pytest.raises(ValueError, match="and no test, which evaluate read"):
        checked({**pairs, "download.paths": both})
    with pytest.raises(ValueError, match="and no shown, which index read"):
        checked({**pairs, "download.paths": {**both, "test": path}, "index.splits": ["shown"]})
    checked({**pairs, "download.paths": {**both, "test": path}})
    checked({**pairs, "download.paths": {"train": path}}, only="download")


def test_only_stages_that_would_run_are_looked_at(var, pairs, tmp_path):
    config = resolve("tiny", {**pairs, "download.paths": {"train": f"{tmp_path}/list.tsv[9:]"}})
    planned = plan(dag("staged"), config, {"download"})
    with pytest.raises(ValueError, match="has no rows"):
        check_before(planned)
    artifact = planned["download"].artifact.path
    artifact.mkdir(parents=True)
    (artifact / "manifest.json").write_text("{}")
    check_before(planned)
    with pytest.raises(ValueError, match="has no rows"):
        check_before(planned, force={"download"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decision.votes_file", "/none/votes.tsv"),
        ("evaluate.metric_networks.fid", "/a/none"),
        ("evaluate.contexts.vist_stories", "stories/of/none.json"),
    ],
)
def test_files_that_settings_name_must_be_there(var, key, value):
    with pytest.raises(SettingsError, match=f"{key} is '{value}', and there is nothing at"):
        checked({key: value})


def test_a_network_of_the_hub_is_no_file_of_this_machine(var):
    checked({"evaluate.metric_networks.lpips": "owner/repository/alexnet.pth"})


def test_too_little_room_is_said_at_once(var):
    with pytest.raises(DiskFullError, match=r"GB are free .* runtime\.minimum_free_bytes"):
        checked({"runtime.minimum_free_bytes": 1 << 59})


def test_a_device_that_is_not_there_is_said_at_once(var):
    with pytest.raises(ValueError, match=r"runtime\.device is 'cuda:77' and there is no cuda:77"):
        checked({"runtime.device": "cuda:77"})


def test_the_metric_network_has_an_architecture_and_weights(var):
    for wrong, message in (("ViT-L-14", "must be model/pretraining"),
                           ("ViT-L-14/openai", "use 'ViT-L-14-quickgelu'"),
                           ("ViT-L-41/openai", "'ViT-L-41', which open_clip does")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            checked({"evaluate.metric_networks.clip": wrong})
