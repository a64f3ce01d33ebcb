"""``model_args.json`` of the released GILL checkpoints: what it says, checked and written whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARGS = "model_args.json"
# Widths of the input embeddings of the language models that the released code takes.
OPT_WIDTHS = {
    "facebook/opt-125m": 768, "facebook/opt-350m": 512, "facebook/opt-1.3b": 2048,
    "facebook/opt-2.7b": 2560, "facebook/opt-6.7b": 4096, "facebook/opt-13b": 5120,
    "facebook/opt-30b": 7168, "facebook/opt-66b": 9216,
}  # fmt: skip
# Widths of the pooled features of the vision encoders that are known.
CLIP_WIDTHS = {"openai/clip-vit-large-patch14": 1024}
OPT_IMG0 = 50_266  # id of [IMG0]: behind OPT's 50,265 tokens and the released code's <|image|>
_SIZES = ("n_visual_tokens", "ret_emb_dim", "gen_emb_dim", "num_tokens", "num_clip_tokens")
_NAMES = ("opt_version", "visual_encoder")
# What is read in one form alone; a file may leave these out, as an early one of the authors' does.
_FIXED: Mapping[str, Any] = {
    "text_fc_mode": "gill_mapper",
    "ret_text_fc_mode": "linear",
    "text_emb_layers": [-1],
    "share_ret_gen": True,
    "freeze_lm": True,
    "freeze_vm": True,
}
_IDS = ("retrieval_token_idx", "gen_token_idx")
_LARGEST = 1 << 20


class ReleasedError(ValueError):
    """A checkpoint is not of the released layout, or a model does not fit into it.

    Says in which file, which value, and what to do.
    """


def checked_args(args: Any) -> dict[str, Any]:
    """The settings of a checkpoint, known to be sound.

    Raises:
        ReleasedError: a key is missing or of another kind, or asks for what is not read here.
    """
    if not isinstance(args, dict):
        raise ReleasedError(
            f"{ARGS} holds a {type(args).__name__}, not an object of settings; copy the authors' "
            "file, or write one with `gill export`"
        )
    missing = [key for key in (*_NAMES, *_SIZES) if key not in args]
    if missing:
        raise ReleasedError(
            f"{ARGS} lacks {', '.join(missing)}; take the whole file that belongs to the checkpoint"
        )
    for key in _NAMES:
        if not isinstance(args[key], str) or not args[key].strip():
            raise _wrong(key, args[key], "a name, such as 'facebook/opt-6.7b'")
        if names_a_folder(args[key]):
            raise _wrong(key, args[key], "a public name; a checkpoint may not name your folders")
    for key in _SIZES:
        value = args[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            raise _wrong(key, value, f"a whole number from 1 to {_LARGEST:,}")
    for key, only in _FIXED.items():
        if key in args and args[key] != only:
            raise _wrong(key, args[key], f"{only!r}: nothing else is read here")
    _check_ids(args)
    return dict(args)


def names_a_folder(name: str) -> bool:
    """Whether a name leads into the folders of whoever reads it, which a stranger may not do."""
    return name.startswith(("/", "~")) or ".." in name.split("/")


def _check_ids(args: Mapping[str, Any]) -> None:
    """[IMG] ids follow each other, behind the vocabulary of the language model that is named."""
    for key in _IDS:
        ids = args.get(key)
        if ids is None:
            continue
        r = args["num_tokens"]
        if not isinstance(ids, list) or any(type(one) is not int for one in ids):
            raise _wrong(key, ids, "a list of token ids")
        first = OPT_IMG0 if args["opt_version"] in OPT_WIDTHS else (ids or [0])[0]
        if ids != list(range(first, first + r)):
            raise _wrong(
                key, ids,
                f"the {r} ids of [IMG0] to [IMG{r - 1}] in order, from {first} on: the tensors "
                f"belong to another vocabulary than that of {args['opt_version']}",
            )  # fmt: skip


def _wrong(key: str, value: Any, wanted: str) -> ReleasedError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ReleasedError(f"{ARGS}: {key} is {shown}; it must be {wanted}")


def whole_args(names: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Every key that the released loader reads.

    Args:
        names: ``opt_version`` and ``visual_encoder``. sizes: the five sizes.
    """
    r = sizes["num_tokens"]
    args = {**names, **_FIXED, **sizes, "norm_image_embed": "none"}
    if names["opt_version"] in OPT_WIDTHS:
        args |= {key: list(range(OPT_IMG0, OPT_IMG0 + r)) for key in _IDS}
    return args
