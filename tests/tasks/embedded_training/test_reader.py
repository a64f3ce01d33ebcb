"""The step ``reader``: what each cell of a scene is to say, and scores of what is read."""

import pytest
import torch

from data.scenes.grammar import GROUNDS, SIZES, Group, Scene, World
from data.scenes.scoring import KIND_OF, SIZE_NAMES
from gill.backbones.embedded.autoencoder import AutoencoderShape, SceneAutoencoder
from gill.backbones.embedded.reader import Found, Reading, _objects
from tasks.embedded_training.reader import (
    cells_of,
    new_reader,
    reader_accuracy,
    scores_of,
    summary,
)

CAT, DOG = Group("cat", 1, "small", ((1, 2),)), Group("dog", 2, "medium", ((4, 0), (4, 4)))
SCENE = Scene((CAT, DOG), "left of", "", "beach")


def truth(scene):
    """A reading without an error."""
    objects = [
        Found(KIND_OF[g.name], SIZE_NAMES.index(g.size), x + SIZES[g.size] / 2,
              y + SIZES[g.size] / 2, 1.0)
        for g in scene.groups for x, y in g.places
    ]  # fmt: skip
    return Reading(tuple(objects), GROUNDS.index(scene.ground))


def test_cells_by_hand():
    cells, grounds = cells_of([SCENE])
    kinds, sizes, columns, rows = cells[0]
    assert grounds.tolist() == [GROUNDS.index("beach")]
    cat, dog = KIND_OF["cat"] + 1, KIND_OF["dog"] + 1
    assert kinds[2:5, 1:4].eq(cat).all()  # rows from 2 and columns from 1 on
    assert int(kinds.eq(cat).sum()) == 9
    assert int(kinds.eq(dog).sum()) == 2 * 16
    assert kinds[0, 0] == 0
    assert {int(x[0, 0]) for x in (sizes, columns, rows)} == {-1}  # nothing is there
    assert sizes[2, 1] == SIZE_NAMES.index("small")
    assert columns[2, 1:4].tolist() == [0, 1, 2]
    assert rows[2:5, 1].tolist() == [0, 1, 2]


def test_cells_are_what_the_reader_puts_together_again():
    world = World(120)
    scenes = [world.scene("train", i) for i in range(50)]
    cells, _ = cells_of(scenes)
    for scene, maps in zip(scenes, cells.tolist(), strict=True):
        found = {(o.kind, o.size, o.x, o.y) for o in _objects(maps, tuple(SIZES.values()))}
        assert found == {(o.kind, o.size, o.x, o.y) for o in truth(scene).objects}


def test_scores_are_listed_by_factor_over_the_scenes_that_have_it():
    alone = Scene((CAT,), "", "on the left", "snow")
    found = scores_of([SCENE, alone, SCENE], [truth(SCENE), truth(alone), Reading((), 0)])
    assert found["object_f1"].tolist() == [1.0, 1.0, 0.0]
    assert found["relation"].tolist() == [1.0, 0.0]
    assert found["order"].tolist() == [1.0]  # in the third neither is there
    assert len(found["place"]) == 1
    with pytest.raises(ValueError, match="shorter"):
        scores_of([SCENE], [])


def test_means_with_their_standard_errors_by_hand():
    found = summary({"ground": torch.tensor([1.0, 0.0, 1.0, 0.0]), "order": torch.tensor([1.0])})
    # Deviation (n - 1) of 0.577, over the root of 4.
    assert found == {"ground": 0.5, "ground_se": 0.2887, "order": 1.0}


@pytest.mark.slow
def test_accuracy_has_a_row_for_true_and_decoded_and_shuffled_scenes():
    torch.manual_seed(0)
    vae = SceneAutoencoder(AutoencoderShape(channels=4, wide=16, middle=16)).eval()
    found = reader_accuracy(new_reader().eval(), vae, World(120), 8)
    assert {name.partition(" ")[0] for name in found} == {"true", "autoencoder", "shuffled"}
    assert all(0 <= value <= 1 for value in found.values())
