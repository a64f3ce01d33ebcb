"""The layout of the released GILL checkpoints (kohjingyu/gill), to and from this project's names.

``model_args.json`` holds sizes, ``pretrained_ckpt.pth.tar`` the tensors under ``state_dict``
(some keys with a ``module.`` prefix), ``decision_model.pth.tar`` the decision model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gill.decision import DecisionModel
from gill.mapper import GillMapper, MapperSize
from gill.released_args import (
    ARGS,
    CLIP_WIDTHS,
    OPT_WIDTHS,
    ReleasedError,
    checked_args,
    whole_args,
)
from gill.specs import AdapterSpec, MapperSpec

WEIGHTS, DECISION = "pretrained_ckpt.pth.tar", "decision_model.pth.tar"
OWN = "gill"  # our key in model_args.json, which the released loader does not look at
# Released name -> ours. Names that end with a dot are prefixes.
_ADAPTERS = {
    "model.logit_scale": "retrieval.logit_scale",
    "model.visual_embeddings.": "captioning.linear.",
    "model.visual_fc.": "retrieval.image.",
    "model.ret_text_hidden_fcs.0.model.": "retrieval.text.",
    "model.input_embeddings.weight": "img_tokens.weight",
}
_MAPPER = "model.gen_text_hidden_fcs.0."
_DECISION = {"1.weight": "linear.weight", "1.bias": "linear.bias"}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class CheckpointMismatchError(ReleasedError):
    """Tensors of a checkpoint are missing, unexpected or misshapen; lists every one."""

    def __init__(self, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
        parts = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        listed = "; ".join(f"{name}: {', '.join(sorted(v))}" for name, v in parts.items() if v)
        super().__init__(
            f"{WEIGHTS} does not fit {ARGS}: {listed}. Take both files of one checkpoint, with the "
            "trained tensors alone (the released scripts/prune_model_ckpt.py leaves just these)"
        )


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """A checkpoint in this project's names.

    Attributes:
        adapters, mapper: state dicts for ``Adapters`` and ``GillMapper`` of the specs.
        decision: state dict for ``DecisionModel``, or None where the checkpoint has none.
        args: what ``model_args.json`` says besides.
    """

    adapter_spec: AdapterSpec
    adapters: dict[str, Tensor]
    mapper_spec: MapperSpec
    mapper: dict[str, Tensor]
    decision: dict[str, Tensor] | None
    args: dict[str, Any]


def from_released(args: Any, state: Any, decision: Any | None) -> ReleasedCheckpoint:
    """Rename and check what the files of a released checkpoint hold.

    Args:
        args: of ``model_args.json``. state, decision: what lies under ``state_dict`` in the others.

    Raises:
        ReleasedError: a setting is missing or wrong, or tensors do not fit the settings or hold no
            finite numbers; says which.
    """
    args = checked_args(args)
    state = {n.removeprefix("module."): v for n, v in _tensors(WEIGHTS, state).items()}
    adapters = {ours: state[name] for name, ours in _renamed(state) if ours is not None}
    mapper = {n.removeprefix(_MAPPER): v for n, v in state.items() if n.startswith(_MAPPER)}
    adapter_spec, mapper_spec = _specs(args, state)
    unexpected = [name for name, ours in _renamed(state) if ours is None]
    _check(adapters, _adapter_shapes(adapter_spec), mapper, _mapper_shapes(mapper_spec), unexpected)
    for key, widths, found in (
        ("opt_version", OPT_WIDTHS, adapter_spec.llm_dim),
        ("visual_encoder", CLIP_WIDTHS, adapter_spec.vision_dim),
    ):
        if (known := widths.get(args[key])) not in (None, found):
            raise ReleasedError(
                f"{WEIGHTS} is for a model of width {found}, and {ARGS} names {args[key]!r}, which "
                f"has {known}; set {key} to the model that it was trained with"
            )
    return ReleasedCheckpoint(
        adapter_spec, adapters, mapper_spec, mapper,
        None if decision is None else _decision(decision, adapter_spec.llm_dim), args,
    )  # fmt: skip


def _tensors(file: str, state: Any) -> dict[str, Tensor]:
    """A state dict of finite floating-point tensors.

    Raises:
        ReleasedError: it is none, or a tensor has another kind of numbers or holds NaN or infinity.
    """
    if not isinstance(state, Mapping) or not state:
        raise ReleasedError(f"{file} holds no tensors under 'state_dict'; save a state dict there")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ReleasedError(
                f"{file}: {name!r} is a {type(value).__name__}, not a tensor; save tensors alone"
            )
        if value.dtype not in _FLOATS:
            raise ReleasedError(
                f"{file}: {name} holds {value.dtype}; save it as float32, float16 or bfloat16"
            )
        if not bool(torch.isfinite(value).all()):
            raise ReleasedError(
                f"{file}: {name} holds NaN or infinity; its training diverged or the file is "
                "damaged: take another checkpoint"
            )
    return dict(state)


def _specs(args: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[AdapterSpec, MapperSpec]:
    """Sizes, of the settings and of the shapes that these do not tell."""
    inner_name = f"{_MAPPER}tfm.encoder.layers.0.linear1.weight"
    telling = {
        "model.visual_fc.weight": 2, "model.input_embeddings.weight": 2,
        f"{_MAPPER}query_embs": 3, inner_name: 2,
    }  # fmt: skip
    missing = [name for name in telling if name not in state]
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {dims} dimensions"
        for name, dims in telling.items()
        if name in state and state[name].dim() != dims
    ]
    if missing or misshapen:
        raise CheckpointMismatchError(missing, [], misshapen)
    vision, words, query, inner = (state[name] for name in telling)
    adapter_spec = AdapterSpec(
        num_img_tokens=args["num_tokens"],
        num_visual_tokens=args["n_visual_tokens"],
        retrieval_dim=args["ret_emb_dim"],
        vision_dim=int(vision.shape[1]),
        llm_dim=int(words.shape[1]),
    )
    layers = {name.split(".")[6] for name in state if f"{_MAPPER}tfm.encoder.layers." in name}
    own = args.get(OWN)
    heads = own.get("mapper_heads") if isinstance(own, dict) else None
    sizes = {
        "hidden_dim": int(query.shape[2]),
        "layers": len(layers),
        "heads": 4 if heads is None else heads,  # which no shape tells
        "feedforward_dim": int(inner.shape[0]),
    }
    try:
        size = MapperSize(**sizes)
    except ValueError as error:
        raise ReleasedError(
            f"{WEIGHTS} is of a mapper with {sizes}, which none can have: {error}; take another "
            "checkpoint"
        ) from error
    mapper_spec = MapperSpec(
        llm_dim=adapter_spec.llm_dim,
        num_img_tokens=adapter_spec.num_img_tokens,
        num_targets=args["num_clip_tokens"],
        target_dim=args["gen_emb_dim"],
        size=size,
    )
    return adapter_spec, mapper_spec


def _decision(state: Any, llm_dim: int) -> dict[str, Tensor]:
    found = _tensors(DECISION, state)
    with torch.device("meta"):
        wanted = DecisionModel(llm_dim).state_dict()
    shapes = {name: tuple(wanted[ours].shape) for name, ours in _DECISION.items()}
    if {name: tuple(value.shape) for name, value in found.items()} != shapes:
        held = {name: tuple(value.shape) for name, value in found.items()}
        raise ReleasedError(
            f"{DECISION} holds {held}, and a model of width {llm_dim} wants {shapes}; take the "
            "decision model of this checkpoint, or leave the file out"
        )
    return {_DECISION[name]: value for name, value in found.items()}


def misfits(checkpoint: ReleasedCheckpoint) -> list[str]:
    """Why the released code cannot load a model, each with what would be right; empty if it can.

    Its sizes are constants: a mapper of 512, 4 + 4 layers, 4 heads, 2,048 inside; targets of width
    768; a decision model on 4,096; OPT and a CLIP of Hugging Face.
    """
    found, mapper = [], checkpoint.mapper_spec
    opt, vision = checkpoint.args["opt_version"], checkpoint.args["visual_encoder"]
    if opt not in OPT_WIDTHS:
        found.append(f"its language model is {opt}, not one of {', '.join(OPT_WIDTHS)}")
    if not vision.startswith("openai/clip-"):
        found.append(f"its vision encoder is {vision}, not a CLIP of openai/ on Hugging Face")
    for name, wanted in MapperSize().model_dump().items():
        if (held := getattr(mapper.size, name)) != wanted:
            found.append(f"its mapper's {name} is {held!r}, not {wanted!r}")
    if mapper.target_dim != 768:
        found.append(f"its generator is conditioned on width {mapper.target_dim}, not 768")
    if checkpoint.decision is not None and mapper.llm_dim != 4096:
        found.append(f"its decision model reads width {mapper.llm_dim}, not 4096")
    return found


def to_released(
    checkpoint: ReleasedCheckpoint,
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor] | None]:
    """What the three files hold: the settings, and the two state dicts.

    Raises:
        ReleasedError: the layout has no place for a part of the model.
    """
    if "img_tokens.output_weight" in checkpoint.adapters:
        raise ReleasedError(
            "the model has [IMG] output rows of its own (its language model's embeddings are "
            "untied), for which the released layout has no place; train on a model with tied ones"
        )
    spec, mapper = checkpoint.adapter_spec, checkpoint.mapper_spec
    if mapper.size.kind != "gill":
        raise ReleasedError(
            f"the mapper's kind is {mapper.size.kind!r}, and the released layout holds GILLMapper "
            "alone; train with mapper.kind=gill"
        )
    sizes = {
        "n_visual_tokens": spec.num_visual_tokens,
        "ret_emb_dim": spec.retrieval_dim,
        "gen_emb_dim": mapper.target_dim,
        "num_tokens": spec.num_img_tokens,
        "num_clip_tokens": mapper.num_targets,
    }
    names = {name: str(checkpoint.args[name]) for name in ("opt_version", "visual_encoder")}
    own = dict(checkpoint.args.get(OWN) or {}) | {"mapper_heads": mapper.size.heads}
    args = {**checkpoint.args, **whole_args(names, sizes), OWN: own}
    state = {}
    for released, ours in _ADAPTERS.items():
        for name, value in checkpoint.adapters.items():
            if name == ours or (ours.endswith(".") and name.startswith(ours)):
                state[released + name.removeprefix(ours)] = value
    state |= {f"{_MAPPER}{name}": value for name, value in checkpoint.mapper.items()}
    if checkpoint.decision is None:
        return args, state, None
    back = {ours: released for released, ours in _DECISION.items()}
    return args, state, {back[name]: value for name, value in checkpoint.decision.items()}


def _renamed(state: Mapping[str, Tensor]) -> list[tuple[str, str | None]]:
    out: list[tuple[str, str | None]] = []
    for name in state:
        if name.startswith(_MAPPER):
            continue
        ours = _ADAPTERS.get(name)
        for released, prefix in _ADAPTERS.items():
            if released.endswith(".") and name.startswith(released):
                ours = prefix + name.removeprefix(released)
        out.append((name, ours))
    return out


def _adapter_shapes(spec: AdapterSpec) -> dict[str, tuple[int, ...]]:
    wide = spec.num_visual_tokens * spec.llm_dim
    return {
        "retrieval.logit_scale": (),
        "captioning.linear.weight": (wide, spec.vision_dim),
        "captioning.linear.bias": (wide,),
        "retrieval.image.weight": (spec.retrieval_dim, spec.vision_dim),
        "retrieval.image.bias": (spec.retrieval_dim,),
        "retrieval.text.weight": (spec.retrieval_dim, spec.llm_dim),
        "retrieval.text.bias": (spec.retrieval_dim,),
        "img_tokens.weight": (spec.num_img_tokens, spec.llm_dim),
    }


def _mapper_shapes(spec: MapperSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        mapper = GillMapper(spec.llm_dim, spec.num_targets, spec.target_dim, spec.size)
    return {name: tuple(value.shape) for name, value in mapper.state_dict().items()}


def _check(
    adapters: Mapping[str, Tensor],
    adapter_shapes: Mapping[str, tuple[int, ...]],
    mapper: Mapping[str, Tensor],
    mapper_shapes: Mapping[str, tuple[int, ...]],
    unexpected: list[str],
) -> None:
    missing, misshapen = [], []
    for found, shapes in ((adapters, adapter_shapes), (mapper, mapper_shapes)):
        missing += [name for name in shapes if name not in found]
        unexpected = unexpected + [name for name in found if name not in shapes]
        misshapen += [
            f"{name} {tuple(found[name].shape)} instead of {shape}"
            for name, shape in shapes.items()
            if name in found and tuple(found[name].shape) != shape
        ]
    if missing or unexpected or misshapen:
        raise CheckpointMismatchError(missing, unexpected, misshapen)
