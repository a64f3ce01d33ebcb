"""Figures of the paper, to stand beside ours (arXiv 2305.17216; facts in docs/evaluation.md)."""

from __future__ import annotations

# VIST, the image of the last of five sentences: CLIP similarity and LPIPS by context.
STORY_CONTEXTS = ("1 caption", "5 captions", "5 captions, 4 images")
VIST: dict[str, dict[str, tuple[float | None, ...]]] = {
    "GLIDE": {"similarity": (0.582, 0.591, None), "lpips": (0.753, 0.745, None)},
    "Stable Diffusion": {"similarity": (0.592, 0.598, None), "lpips": (0.703, 0.704, None)},
    "GILL": {"similarity": (0.581, 0.612, 0.641), "lpips": (0.702, 0.696, 0.693)},
}
DECISION_HUMANS = 0.851  # agreement of people on PartiPrompts
DECISION_RELEASED = 0.54  # macro F1 of the released notebook, without the retrieval index

FINDINGS = (
    "More context helps GILL and hardly helps the text-only generator.",
    "Images in the context help further.",
    "On VisDial, quality grows with the rounds of the dialogue.",
    "GILLMapper beats a linear map, an MLP and a 4-layer encoder.",
    "Quality grows with r and flattens; r = 4 is the balance.",
)
