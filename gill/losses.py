"""The four losses of GILL (facts: l_c, l_p, l_r, l_g), each a scalar in float32."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from gill.settings import PAPER, REFERENCE, ComponentSettings, later_setting, setting

GenerationForm = Literal["norm", "squared"]
ImgPredictionForm = Literal["paper", "released"]
_HEAVIEST = 1e6  # weight of a loss


def _weight(description: str) -> Any:
    return setting(1.0, description, unit="times", source=PAPER, ge=0, le=_HEAVIEST)


class AdapterLossWeights(ComponentSettings):
    """Weights of the adapters' three losses."""

    captioning_weight: float = _weight("of l_c among the losses")
    img_prediction_weight: float = _weight("of l_p among the losses")
    retrieval_weight: float = _weight("of l_r among the losses")
    img_prediction_form: ImgPredictionForm = later_setting(
        "paper",
        "paper: of [IMG0] after the caption; released: mean over the caption's tokens and [IMG0], "
        "of packed pairs up to the first [IMG1]",
        source=PAPER,
    )
    logit_scale_cap: float = later_setting(
        100.0,
        "of l_r: its largest inverse temperature; 0: none, as in the released code",
        unit="factor of a cosine",
        source="CLIP",
        ge=0,
        le=_HEAVIEST,
    )

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not (self.captioning_weight or self.img_prediction_weight or self.retrieval_weight):
            raise ValueError(
                "captioning_weight, img_prediction_weight and retrieval_weight are all 0; one must "
                "be above 0, or nothing is learnt"
            )
        return self


class GenerationLossWeight(ComponentSettings):
    """Weight of the mapper's loss beside the adapters'."""

    generation_weight: float = _weight("of l_g among the losses of the joint schedule")


class GenerationLossForm(ComponentSettings):
    """How far the mapper's output is from its target."""

    loss_form: GenerationForm = setting(
        "norm",
        "norm: l2 norm over the width, mean over the rest; squared: the paper's",
        source=REFERENCE,
    )


class LossWeights(AdapterLossWeights, GenerationLossWeight):
    """Weights of all four losses."""


def token_loss(vocabulary: Tensor, img: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the vocabulary extended by the [IMG] tokens: l_c and l_p.

    Args:
        vocabulary: logits ``(n, vocab_size)`` of the frozen output layer.
        img: logits ``(n, r)`` of the [IMG] tokens.
        labels: ``(n,)``, ids; [IMGi] is ``vocab_size + i``.
    """
    return F.cross_entropy(torch.cat([vocabulary.float(), img.float()], dim=-1), labels)


class _FrozenHeadLoss(torch.autograd.Function):
    """The token loss without keeping the vocabulary logits.

    The output layer is frozen, so only the gradient with respect to the hidden states and the [IMG]
    logits is wanted, and both follow from the softmax in the same pass. A chunk of logits is
    computed, used and dropped: memory is that of one chunk and the logits are made once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        img: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        chunk: int,
    ) -> Tensor:
        count, vocab_size = len(hidden), len(weight)
        grad_hidden, grad_img = torch.empty_like(hidden), torch.empty_like(img)
        total = hidden.new_zeros((), dtype=torch.float32)
        wanted = labels < vocab_size
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            logits = F.linear(hidden[rows].to(weight.dtype), weight, bias).float()
            norm = torch.logaddexp(logits.logsumexp(-1), img[rows].float().logsumexp(-1))
            at = labels[rows].clamp(max=vocab_size - 1)[:, None]
            img_at = (labels[rows] - vocab_size).clamp(min=0)[:, None]
            own = torch.where(
                wanted[rows],
                logits.gather(1, at)[:, 0],
                img[rows].float().gather(1, img_at)[:, 0],
            )
            total += (norm - own).sum()
            share = (img[rows].float() - norm[:, None]).exp()
            share.scatter_add_(1, img_at, -(~wanted[rows]).float()[:, None])
            grad_img[rows] = (share / count).to(img.dtype)
            logits.sub_(norm[:, None]).exp_()
            logits.scatter_add_(1, at, -wanted[rows].float()[:, None])
            grad_hidden[rows] = (logits.to(weight.dtype) @ weight / count).to(hidden.dtype)
        ctx.save_for_backward(grad_hidden, grad_img)
        return total / count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        grad_hidden, grad_img = ctx.saved_tensors
        return gradient * grad_hidden, gradient * grad_img, None, None, None, None


def frozen_head_loss(
    hidden: Tensor, img: Tensor, head: nn.Module, labels: Tensor, chunk: int = 256
) -> Tensor:
    """``token_loss`` of hidden states ``(n, dim)`` under a frozen output layer.

    Equals ``token_loss(head(hidden), img, labels)`` and its gradients (a test holds this). Layers
    that are not a plain ``nn.Linear`` (quantised ones, say) take that plain way.

    Args:
        img: logits ``(n, r)`` of the [IMG] tokens.
        chunk: positions whose vocabulary logits are held at a time.
    """
    if type(head) is not nn.Linear or head.weight.requires_grad:
        return token_loss(head(hidden), img, labels)
    loss: Tensor = _FrozenHeadLoss.apply(hidden, img, head.weight, head.bias, labels, chunk)
    return loss


def contrastive_loss(text: Tensor, image: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch: l_r.

    Args:
        text: unit vectors ``(n, d)``; image: unit vectors ``(n, d)`` of the same examples.
        scale: the inverse temperature.
    """
    logits = scale * text @ image.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def contrastive_loss_of_part(
    text: Tensor, all_text: Tensor, all_image: Tensor, scale: Tensor, start: int, fraction: float
) -> Tensor:
    """The whole batch's contrastive loss, with the gradients that one part of it contributes.

    Its value is that of the whole batch. Its gradients, times ``fraction`` and summed over the
    parts, are those of the whole batch, although every part holds the others' vectors as constants:
    each row's gradient comes from the part that it belongs to, and the scale's in fractions.

    Args:
        text: unit vectors ``(m, d)`` of the part, with gradients; m is 0 where the fraction is 0.
        all_text, all_image: unit vectors ``(n, d)`` of the whole batch.
        start: the row of ``all_text`` at which the part begins.
        fraction: the part's fraction of the batch.
    """
    stop = start + len(text)
    others = all_image.detach()
    image = torch.cat([others[:start], all_image[start:stop], others[stop:]])
    text = torch.cat([all_text[:start], text, all_text[stop:]])
    part_scale = scale.detach() + (scale - scale.detach()) * fraction
    loss = contrastive_loss(text, image, part_scale)
    if fraction == 0:
        return loss.detach()
    return loss.detach() + (loss - loss.detach()) / fraction


def generation_loss(predicted: Tensor, target: Tensor, form: GenerationForm = "norm") -> Tensor:
    """Distance between the mapper's output and the text encoder's output: l_g.

    ``norm`` is the released code's: l2 norm over the width, mean over tokens and batch.
    ``squared`` is the paper's equation: squared l2 norm over the width, mean over both.

    Args:
        predicted: ``(batch, tokens, dim)``; target: the same shape.
    """
    difference = predicted.float() - target.float()
    if form == "squared":
        return difference.square().sum(-1).mean()
    if form == "norm":
        return difference.norm(dim=-1).mean()
    raise ValueError(f"the form of the generation loss is {form!r}; use 'norm' or 'squared'")
