"""The mapper stage."""

import pytest

KINDS = ("gill", "linear", "mlp", "encoder")


@pytest.fixture(scope="module")
def by_start(tiny_run, tmp_path_factory):
    return {
        start: tiny_run.run(
            "mapper", tmp_path_factory.mktemp(start), start=start, baselines=KINDS[1:]
        )
        for start in ("random", "fitted")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_nearer_from_a_fitted_start(by_start, kind):
    name = "validation_l_g" if kind == "gill" else f"{kind}_validation_l_g"
    assert by_start["fitted"][1][name] < by_start["random"][1][name]


def test_a_fitted_start_helps_where_both_are_trained_together(tiny_run, tmp_path_factory):
    found = {
        start: tiny_run.run("joint", tmp_path_factory.mktemp(start), start=start)[1]
        for start in ("random", "fitted")
    }
    assert found["fitted"]["validation_l_g"] < found["random"]["validation_l_g"]


def test_a_mapper_and_its_rivals_lie_side_by_side(by_start):
    context, metrics = by_start["fitted"]
    assert {p.stem for p in context.out.glob("*.safetensors")} == set(KINDS)
    assert metrics["mean_target_l_g"] > 0
