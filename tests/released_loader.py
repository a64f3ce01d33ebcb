"""What the released code reads of a checkpoint's folder, written down from its behaviour.

kohjingyu/gill at 4600b71: ``load_gill`` in gill/models.py. Its modules are made here with the sizes
that the settings name, and take the tensors as its loader does; the sizes that are constants there
are arguments here, so that a micro model can be read too.
"""

from __future__ import annotations

import json
import keyword
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Settings that are read, by the kind that their use asks for.
READ = {
    "opt_version": str, "visual_encoder": str, "freeze_lm": bool, "freeze_vm": bool,
    "n_visual_tokens": int, "ret_emb_dim": int, "gen_emb_dim": int, "text_emb_layers": list,
    "text_fc_mode": str, "ret_text_fc_mode": str, "num_tokens": int, "num_clip_tokens": int,
}  # fmt: skip


class ToImages(nn.Module):
    """[IMG] states to the generator's conditioning: its ``TextFcLayer`` in mode gill_mapper."""

    def __init__(self, llm_dim: int, tokens: int, dim: int, size: dict[str, int]) -> None:
        super().__init__()
        hidden, layers = size["hidden_dim"], size["layers"]
        self.fc = nn.Linear(llm_dim, hidden)
        self.tfm = nn.Transformer(
            hidden, size["heads"], layers, layers, size["feedforward_dim"], 0.0,
            norm_first=True, batch_first=True,
        )  # fmt: skip
        self.model = nn.Linear(hidden, dim)
        self.query_embs = nn.Parameter(torch.empty(1, tokens, hidden))

    def forward(self, states: Tensor, embeddings: Tensor) -> Tensor:
        """Of states ``(n, r, llm_dim)`` and E_img ``(r, llm_dim)``."""
        queries = self.query_embs.expand(len(states), -1, -1)
        return self.model(self.tfm(self.fc(states + embeddings), queries))


class ToSearch(nn.Module):
    """[IMG] states to the retrieval space: the same in mode linear, of which row 0 is kept."""

    def __init__(self, llm_dim: int, dim: int) -> None:
        super().__init__()
        self.model = nn.Linear(llm_dim, dim)

    def forward(self, states: Tensor) -> Tensor:
        """Of states ``(n, r, llm_dim)``."""
        return self.model(states)[:, 0]


class Released(nn.Module):
    """What is trained of the released model, under the names that it has there.

    Attributes:
        img: E_img ``(r, llm_dim)``, which becomes the last rows of OPT's matrix.
        decision: logits of generate and retrieve, of the first [IMG] state; or None.
    """

    img: Tensor
    decision: nn.Module | None

    def __init__(self, args: dict[str, Any], llm_dim: int, vision_dim: int, size: Any) -> None:
        super().__init__()
        inner = nn.Module()
        inner.logit_scale = nn.Parameter(torch.empty(()))
        inner.visual_embeddings = nn.Linear(vision_dim, args["n_visual_tokens"] * llm_dim)
        inner.visual_fc = nn.Linear(vision_dim, args["ret_emb_dim"])
        layers = args["text_emb_layers"]
        inner.ret_text_hidden_fcs = nn.ModuleList(
            ToSearch(llm_dim, args["ret_emb_dim"]) for _ in layers
        )
        inner.gen_text_hidden_fcs = nn.ModuleList(
            ToImages(llm_dim, args["num_clip_tokens"], args["gen_emb_dim"], size) for _ in layers
        )
        self.model = inner


def load(
    folder: Path,
    llm_dim: int = 4096,
    vision_dim: int = 1024,
    size: dict[str, int] | None = None,
    conditioning: int = 768,
    decision_dim: int = 4096,
) -> Released:
    """Read a folder as ``load_gill`` does.

    It lets missing and unexpected tensors pass without a word, and a model then runs on random
    weights; here either is an error.
    """
    args = json.loads((folder / "model_args.json").read_text())
    for key in args:  # they become the fields of a named tuple
        assert key.isidentifier(), key
        assert not keyword.iskeyword(key), key
        assert not key.startswith("_"), key
    for key, kind in READ.items():
        assert type(args[key]) is kind, f"{key}: {args[key]!r}"
    assert args.get("share_ret_gen", True)
    assert (args["text_fc_mode"], args["ret_text_fc_mode"]) == ("gill_mapper", "linear")
    assert args["text_emb_layers"] == [-1]
    assert args["gen_emb_dim"] == conditioning
    constants = {"hidden_dim": 512, "layers": 4, "heads": 4, "feedforward_dim": 2048}
    with torch.device("meta"):
        released = Released(args, llm_dim, vision_dim, size or constants)
        decision = nn.Sequential(nn.Dropout(0.5), nn.Linear(decision_dim, 2))
    state = _state(folder / "pretrained_ckpt.pth.tar")
    state = {name.replace("module.", ""): value for name, value in state.items()}
    img = state.pop("model.input_embeddings.weight")
    assert img.shape == (args["num_tokens"], llm_dim)
    released.load_state_dict(state, strict=True, assign=True)
    decision.load_state_dict(_state(folder / "decision_model.pth.tar"), strict=True, assign=True)
    released.decision, released.img = decision, img
    return released.eval()


def _state(path: Path) -> dict[str, Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])
