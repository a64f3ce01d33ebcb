"""Where the adapters' training begins: a prompt with the words of the image, a fitted mapper."""

import pytest
import torch
from small_store import LLM, TARGET, R, SmallStore

from data.shards import AlignedShards
from gill.backbones.testing import micro_models
from gill.initialization import SMALL, words_of_images
from gill.mapper import MapperSize, new_mapper
from gill.model import GillModel
from tasks.config.adapters import AdaptersConfig
from tasks.training.adapter_losses import AdapterLosses, JointMapper
from tasks.training.starts import start_as_prompt, start_joint_mapper


@pytest.fixture
def store(tmp_path):
    return SmallStore(tmp_path)


@pytest.fixture
def language():
    return micro_models.language_model()


def pairs(store, targets=False):
    folders = {store.images.folder: ["caption"], store.features.folder: ["feature"]}
    if targets:
        folders[store.targets.folder] = ["target"]
    return AlignedShards(folders, "train")


def embeddings_of(language, text):
    ids = language.tokenizer(text, add_special_tokens=False)["input_ids"]
    return language.embedding.weight[ids]


def visual(adapters):
    return adapters.captioning.linear.bias.detach().view(2, LLM)


def test_a_prompt_of_text_alone_is_what_every_image_says(store, language):
    adapters = store.trained()
    weight = adapters.captioning.linear.weight.detach().clone()
    start_as_prompt(adapters, language, "ab", pairs(store))
    torch.testing.assert_close(visual(adapters), embeddings_of(language, "ab"))
    torch.testing.assert_close(adapters.captioning.linear.weight.detach(), SMALL * weight)


def test_the_words_of_the_image_take_the_place_of_the_braces(store, language):
    adapters = store.trained()
    start_as_prompt(adapters, language, "a{}", pairs(store))
    torch.testing.assert_close(visual(adapters)[:1], embeddings_of(language, "a"))
    features = torch.from_numpy(store.features_of["train"]).float()
    tokens = language.tokenize(store.captions["train"], 99)
    weight, bias = words_of_images(features, tokens, language.embedding.weight)
    own = slice(LLM, 2 * LLM)  # the second visual token's rows
    torch.testing.assert_close(adapters.captioning.linear.weight[own], weight)
    torch.testing.assert_close(adapters.captioning.linear.bias[own], bias)


def test_captions_without_a_word_are_left_out_of_the_fit(tmp_path, language):
    """The tokenizer of the language model gives nothing for them once it prepends no BOS."""
    store = SmallStore(tmp_path, {"train": ["a cat", "", "a dog", "b"]})
    language.prepends_bos = False
    adapters = store.trained()
    start_as_prompt(adapters, language, "a{}", pairs(store))
    assert torch.isfinite(adapters.captioning.linear.weight).all()


def test_a_text_that_leaves_no_token_for_the_words_is_refused(store, language):
    adapters = store.trained()
    with pytest.raises(ValueError, match=r"'ab\{\}' has 2 tokens before \{\} and there are 2 visu"):
        start_as_prompt(adapters, language, "ab{}", pairs(store))


def losses_of(store, language, joint):
    config = AdaptersConfig(num_img_tokens=R, batch_size=4, precision="float32")
    model = GillModel(language, store.trained(), config.max_tokens - R)
    return AdapterLosses(model, config, joint)


def joint_of(store):
    torch.manual_seed(1)
    size = MapperSize(kind="linear", hidden_dim=8)
    mapper = new_mapper(LLM, R, *TARGET, size)
    return JointMapper(mapper, store.targets.folder, "norm", 1.0, initialize=True)


def test_a_joint_mapper_starts_at_the_mean_target(store, language):
    joint = joint_of(store)
    losses = losses_of(store, language, joint)
    batch = losses.batch(pairs(store, targets=True).all())

    def distance():
        states = losses.model.img_states(batch.captions)
        made = joint.mapper(states, losses.model.adapters.img_tokens.weight).detach()
        return float((made.mean(0) - batch.targets.float().mean(0)).square().mean())

    before = distance()
    start_joint_mapper(joint, losses, pairs(store, targets=True), batch_size=5)
    assert distance() < 0.1 * before


def test_a_fit_without_targets_is_refused(store, language):
    losses = losses_of(store, language, None)
    with pytest.raises(ValueError, match="initialization of the mapper needs targets"):
        start_joint_mapper(joint_of(store), losses, pairs(store), batch_size=5)
