"""``model_args.json``: the ids of [IMG] tokens, and what is written of a model is taken again."""

import pytest

from gill.released_args import OPT_IMG0, ReleasedError, checked_args, whole_args

R = 3
NAMES = {"opt_version": "facebook/opt-6.7b", "visual_encoder": "openai/clip-vit-large-patch14"}
SIZES = {
    "n_visual_tokens": 4, "ret_emb_dim": 256, "gen_emb_dim": 768, "num_tokens": R,
    "num_clip_tokens": 77,
}  # fmt: skip


def test_what_is_written_is_taken_and_has_the_ids_of_opt():
    args = whole_args(NAMES, SIZES)
    assert checked_args(args) == args
    assert OPT_IMG0 == 50_265 + 1  # the released code adds <|image|> before [IMG0]
    assert args["retrieval_token_idx"] == args["gen_token_idx"] == [50_266, 50_267, 50_268]


def test_the_authors_own_ids_are_taken():
    authors = whole_args(NAMES, SIZES | {"num_tokens": 8})
    assert authors["gen_token_idx"] == list(range(50_266, 50_274))


def test_without_a_known_vocabulary_ids_need_only_follow_each_other():
    args = whole_args(NAMES | {"opt_version": "tiny"}, SIZES)
    assert "gen_token_idx" not in args
    checked_args(args | {"gen_token_idx": [7, 8, 9]})
    with pytest.raises(ReleasedError, match="gen_token_idx"):
        checked_args(args | {"gen_token_idx": [7, 9, 8]})


@pytest.mark.parametrize(
    "ids",
    [[5, 6, 7], [50_266, 50_267], [50_268, 50_267, 50_266], "50266", [50_266.0, 50_267, 50_268],
     [], {}, [50_266, True, 50_268]],
)  # fmt: skip
@pytest.mark.parametrize("key", ["retrieval_token_idx", "gen_token_idx"])
def test_ids_of_another_vocabulary_are_refused(key, ids):
    with pytest.raises(ReleasedError, match=rf"{key} is .*; it must be (the 3 ids|a list of)"):
        checked_args(whole_args(NAMES, SIZES) | {key: ids})


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ReleasedError) as caught:
        checked_args(whole_args(NAMES, SIZES) | {"opt_version": ["x" * 1000]})
    assert len(str(caught.value)) < 250
