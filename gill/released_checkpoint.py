"""Reads and writes the layout of the released GILL checkpoints (kohjingyu/gill).

``model_args.json`` holds sizes, ``pretrained_ckpt.pth.tar`` the tensors under ``state_dict``
(some keys with a ``module.`` prefix), ``decision_model.pth.tar`` the decision model. Pickles are
read with ``weights_only=True``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gill.mapper import GillMapper, MapperSize
from gill.specs import AdapterSpec, MapperSpec

ARGS, WEIGHTS, DECISION = "model_args.json", "pretrained_ckpt.pth.tar", "decision_model.pth.tar"

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


class CheckpointMismatchError(ValueError):
    """Tensors of a checkpoint are missing, unexpected or misshapen; lists every one."""

    def __init__(self, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
        parts = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
        listed = "; ".join(f"{name}: {', '.join(sorted(v))}" for name, v in parts.items() if v)
        super().__init__(f"the released checkpoint does not fit its model_args.json: {listed}")


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


def read_released(folder: Path) -> ReleasedCheckpoint:
    """Read a folder in the released layout.

    Raises:
        CheckpointMismatchError: tensors and ``model_args.json`` do not agree.
    """
    args = json.loads((folder / ARGS).read_text())
    state = _load(folder / WEIGHTS)
    decision = _load(folder / DECISION) if (folder / DECISION).exists() else None
    return from_released(args, state, decision)


def from_released(
    args: Mapping[str, Any], state: Mapping[str, Tensor], decision: Mapping[str, Tensor] | None
) -> ReleasedCheckpoint:
    """Rename and check the tensors of a released checkpoint."""
    state = {name.removeprefix("module."): value for name, value in state.items()}
    vision = state.get("model.visual_fc.weight")
    words = state.get("model.input_embeddings.weight")
    query = state.get(f"{_MAPPER}query_embs")
    inner = state.get(f"{_MAPPER}tfm.encoder.layers.0.linear1.weight")
    if vision is None or words is None or query is None or inner is None:
        found = {"model.visual_fc.weight": vision, "model.input_embeddings.weight": words,
                 f"{_MAPPER}query_embs": query,
                 f"{_MAPPER}tfm.encoder.layers.0.linear1.weight": inner}  # fmt: skip
        raise CheckpointMismatchError([name for name, v in found.items() if v is None], [], [])
    adapter_spec = AdapterSpec(
        num_img_tokens=int(args["num_tokens"]),
        num_visual_tokens=int(args["n_visual_tokens"]),
        retrieval_dim=int(args["ret_emb_dim"]),
        vision_dim=int(vision.shape[1]),
        llm_dim=int(words.shape[1]),
    )
    layers = {name.split(".")[6] for name in state if f"{_MAPPER}tfm.encoder.layers." in name}
    size = MapperSize(
        hidden_dim=int(query.shape[2]),
        layers=len(layers),
        heads=4,  # which no shape tells
        feedforward_dim=int(inner.shape[0]),
    )
    mapper_spec = MapperSpec(
        llm_dim=adapter_spec.llm_dim,
        num_img_tokens=adapter_spec.num_img_tokens,
        num_targets=int(args["num_clip_tokens"]),
        target_dim=int(args["gen_emb_dim"]),
        size=size,
    )
    adapters = {ours: state[name] for name, ours in _renamed(state) if ours is not None}
    mapper = {n.removeprefix(_MAPPER): v for n, v in state.items() if n.startswith(_MAPPER)}
    unexpected = [name for name, ours in _renamed(state) if ours is None]
    _check(adapters, _adapter_shapes(adapter_spec), mapper, _mapper_shapes(mapper_spec), unexpected)
    return ReleasedCheckpoint(
        adapter_spec,
        adapters,
        mapper_spec,
        mapper,
        None if decision is None else {_DECISION[name]: v for name, v in decision.items()},
        dict(args),
    )


def write_released(folder: Path, checkpoint: ReleasedCheckpoint) -> None:
    """Write a checkpoint in the released layout.

    Raises:
        ValueError: the adapters have output rows of their own (an LLM with untied embeddings), for
            which the layout has no place.
    """
    if "img_tokens.output_weight" in checkpoint.adapters:
        raise ValueError("the released layout has no place for untied [IMG] output rows")
    folder.mkdir(parents=True, exist_ok=True)
    spec, mapper = checkpoint.adapter_spec, checkpoint.mapper_spec
    args = {
        **checkpoint.args,
        "num_tokens": spec.num_img_tokens,
        "n_visual_tokens": spec.num_visual_tokens,
        "ret_emb_dim": spec.retrieval_dim,
        "gen_emb_dim": mapper.target_dim,
        "num_clip_tokens": mapper.num_targets,
        "text_emb_layers": [-1],
    }
    (folder / ARGS).write_text(json.dumps(args, indent=2) + "\n")
    state = {}
    for released, ours in _ADAPTERS.items():
        for name, value in checkpoint.adapters.items():
            if name == ours or (ours.endswith(".") and name.startswith(ours)):
                state[released + name.removeprefix(ours)] = value
    state |= {f"{_MAPPER}{name}": value for name, value in checkpoint.mapper.items()}
    torch.save({"state_dict": state}, folder / WEIGHTS)
    if checkpoint.decision is not None:
        back = {ours: released for released, ours in _DECISION.items()}
        named = {back[name]: value for name, value in checkpoint.decision.items()}
        torch.save({"state_dict": named}, folder / DECISION)


def _load(path: Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)[
        "state_dict"
    ]
    return loaded


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
