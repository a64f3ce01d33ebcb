"""The r [IMG] tokens: parameters beside the frozen vocabulary, never rows of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gill.backbones.language import LanguageModel


class ImgTokenEmbeddings(nn.Module):
    """E_img: input embeddings and output rows of [IMG0] ... [IMG{r-1}].

    Token i has the virtual id ``vocab_size + i``. With tied models the output rows are the input
    embeddings, with untied models they are parameters of their own, as in a resized model.

    Attributes:
        weight: ``(num_img_tokens, dim)``.
        output_weight: the same shape, only where the LLM's output layer is its own matrix.
        norm: mean norm of the frozen embeddings, to which ``rescale`` brings each row.
    """

    def __init__(self, num_img_tokens: int, language: LanguageModel) -> None:
        super().__init__()
        if num_img_tokens < 1:
            raise ValueError(f"num_img_tokens is {num_img_tokens}; at least 1 is needed")
        self.first_id = language.vocab_size
        frozen = language.embedding.weight.detach().float()
        self.register_buffer("norm", frozen.norm(dim=-1).mean(), persistent=False)
        self.norm: Tensor
        self.weight = nn.Parameter(torch.randn(num_img_tokens, language.dim, device=frozen.device))
        self.rescale()
        self.output_weight: nn.Parameter | None = None
        if not language.tied:
            scale = torch.as_tensor(language.head.weight).detach().float().std()
            self.output_weight = nn.Parameter(torch.randn_like(self.weight) * scale)

    def __len__(self) -> int:
        return len(self.weight)

    @torch.no_grad()
    def rescale(self) -> None:
        """Give each input embedding the mean norm of the frozen ones: done after every update."""
        self.weight.mul_(self.norm / self.weight.norm(dim=-1, keepdim=True).clamp(min=1e-12))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the [IMG] tokens ``(..., num_img_tokens)`` of hidden states ``(..., dim)``."""
        rows = self.weight if self.output_weight is None else self.output_weight
        return hidden.float() @ rows.T
