"""A store of a few rows and an engine of micro parts that retrieves from it."""

import pytest
import torch
from micro_engine import build
from small_store import SmallStore

from gill.backbones.testing import micro_models
from gill.inference.index import Index
from tasks.evaluation.stored import StoredImages


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Artifacts of three splits; nothing may be written into them."""
    store = SmallStore(tmp_path_factory.mktemp("small"))
    store.trained()
    return store


@pytest.fixture
def engine(small):
    """Its index holds the images of every split."""
    made = build(micro_models.language_model())
    keys = [key for split in small.captions for key in small.keys(split)]
    features = [torch.from_numpy(small.features_of[split]).float() for split in small.captions]
    with torch.no_grad():
        vectors = made.adapters.retrieval.embed_image(torch.cat(features))
    made.index = Index(keys, vectors)
    return made


@pytest.fixture
def stored(small):
    """The images of the store by key."""
    return StoredImages.of(small.images, small.features)
