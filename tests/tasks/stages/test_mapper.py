"""The mapper stage."""

import pytest

KINDS = ("gill", "linear", "mlp", "encoder")


@pytest.fixture(scope="module")
def by_initialization(tiny_run, tmp_path_factory):
    return {
        start: tiny_run.run(
            "mapper", tmp_path_factory.mktemp(start), initialization=start, baselines=KINDS[1:]
        )
        for start in ("random", "data_dependent")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_nearer_from_a_data_dependent_initialization(by_initialization, kind):
    name = "validation_l_g" if kind == "gill" else f"{kind}_validation_l_g"
    assert by_initialization["data_dependent"][1][name] < by_initialization["random"][1][name]


def test_it_helps_where_both_are_trained_together(tiny_run, tmp_path_factory):
    found = {
        start: tiny_run.run("joint", tmp_path_factory.mktemp(start), initialization=start)[1]
        for start in ("random", "data_dependent")
    }
    assert found["data_dependent"]["validation_l_g"] < found["random"]["validation_l_g"]


def test_a_mapper_and_its_baselines_lie_side_by_side(by_initialization):
    context, metrics = by_initialization["data_dependent"]
    assert {p.stem for p in context.out.glob("*.safetensors")} == set(KINDS)
    assert metrics["mean_target_l_g"] > 0
