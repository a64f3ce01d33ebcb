"""The scene reader: cells that agree make objects."""

import pytest
import torch

from gill.backbones.embedded.reader import Found, ReaderShape, SceneReader, _objects, reader_loss


def painted_cells(objects, sizes=(3, 4)):
    """Maps as an errorless reader gives them, for (kind, size, x, y)."""
    maps = [[[0] * 8 for _ in range(8)] for _ in range(4)]
    for kind, size, x, y in objects:
        for i in range(sizes[size]):
            for j in range(sizes[size]):
                for plane, value in enumerate((kind + 1, size, i, j)):
                    maps[plane][y + j][x + i] = value
    return maps


def test_cells_that_agree_make_objects():
    truth = [(5, 0, 0, 1), (5, 0, 5, 5), (9, 1, 4, 0)]
    found = _objects(painted_cells(truth), (3, 4))
    assert sorted((o.kind, o.size, o.x, o.y) for o in found) == sorted(
        (k, s, x + (3, 4)[s] / 2, y + (3, 4)[s] / 2) for k, s, x, y in truth
    )
    assert {o.share for o in found} == {1.0}


def test_stray_cells_make_none():
    maps = painted_cells([(2, 1, 2, 2)])
    maps[0][0][0], maps[1][0][0] = 8, 0  # one cell that says something else
    maps[0][3][3] = 8
    assert [o.kind for o in _objects(maps, (3, 4))] == [2]
    assert _objects(painted_cells([]), (3, 4)) == []


@pytest.mark.parametrize("batch", [1, 3])
def test_reader_learns_and_reads(batch):
    torch.manual_seed(0)
    reader = SceneReader(ReaderShape(3, (3, 4), 2, middle=16, wide=16, blocks=1))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    cells = torch.tensor([painted_cells([(1, 0, 2, 3)]), painted_cells([(2, 1, 0, 4)])])
    cells[:, 1:][cells[:, :1].expand(-1, 3, -1, -1) == 0] = -1
    ground = torch.tensor([0, 1])
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    for _ in range(60):
        loss = reader_loss(*reader(images), cells, ground)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    readings = reader.read(images, batch)
    assert [r.ground for r in readings] == [0, 1]
    assert [[(o.kind, o.size, o.x, o.y) for o in r.objects] for r in readings] == [
        [(1, 0, 3.5, 4.5)],
        [(2, 1, 2.0, 6.0)],
    ]
    assert isinstance(readings[0].objects[0], Found)
