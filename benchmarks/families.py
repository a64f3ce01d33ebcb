"""Which families of frozen parts work and which are refused, tried with micro models in a minute.

``python -m benchmarks.families`` saves each micro model as its library does, loads it as a recipe
would and uses it: a language model decodes prompts of different lengths together and alone and
gives losses and gradients, an image-text model encodes, a generator makes targets and one step.
``--write`` puts the table into docs/reference/families.md. It ends with 1 if a family does not do
what is said of it in ``gill/backbones/testing``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gill.backbones import image_generator, language, vision
from gill.backbones.language_checks import UnsuitableModelError
from gill.backbones.pipelines import UnsuitableGeneratorError
from gill.backbones.testing import families, micro_generators, micro_models
from gill.batches import AdapterBatch
from gill.inference.decoding import decode
from gill.inference.settings import DecodingSettings
from gill.losses import LossWeights
from gill.model import Adapters, GillModel
from gill.packing import prompt_layout
from gill.specs import AdapterSpec

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "families.md"
INTRODUCTION = """# Families of frozen parts

Written by `python -m benchmarks.families --write`: micro models of each family, saved
as its library saves them, loaded as a recipe would and used. Prompts of different
lengths are decoded together and alone, losses and gradients computed, an image sampled
in one step. Other families may work too: what is loaded is tried, and refused by name
where it fails. [Use your own models](../how-to/your-own-models.md) says more.
"""
CPU = torch.device("cpu")
WORKS, REFUSED = "works", "refused by name"
PROMPTS = ["a", "an old red truck", "flag of"]
REFUSALS = (UnsuitableModelError, UnsuitableGeneratorError, vision.UnsuitableTowerError)


@dataclass(frozen=True)
class Line:
    """A family of a part: what is said of it, what came out, and what is particular."""

    part: str
    family: str
    said: str
    found: str
    note: str


def main() -> int:
    """Try all families and print their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    lines = []
    for line in (*languages(), *towers(), *generators()):
        print(f"{line.part:18} {line.family:32} {line.found}", flush=True)
        lines.append(line)
    wrong = [line for line in lines if line.found != line.said]
    if given.write and not wrong:
        PAGE.write_text(as_page(lines))
    for line in wrong:
        print(f"{line.family}: {line.found}, and it is said that it is: {line.said}")
    return 1 if wrong else 0


def outcome(use: Callable[[], None]) -> tuple[str, str]:
    """What comes of a trial, and the reason of a refusal."""
    try:
        use()
    except REFUSALS as refusal:
        return REFUSED, str(refusal).partition(") ")[2].partition(";")[0]
    except Exception as error:  # noqa: BLE001
        return f"fails: {type(error).__name__}: {error}", ""
    return WORKS, ""


def languages() -> Iterator[Line]:
    """Language models, as saved by transformers."""
    for family in families.LANGUAGE.values():
        with tempfile.TemporaryDirectory() as folder:
            family.build().save_pretrained(folder)
            micro_models.tokenizer().save_pretrained(folder)
            found, why = outcome(lambda folder=folder: use_language(folder))  # type: ignore[misc]
        said = WORKS if family.outcome == "works" else REFUSED
        yield Line("language model", family.title, said, found, family.note or why)


def use_language(folder: str) -> None:
    """Decode together and alone, and compute losses and gradients."""
    llm = language.load_pretrained(folder, "float32", CPU)
    spec = AdapterSpec(
        num_img_tokens=3, num_visual_tokens=2, retrieval_dim=8, vision_dim=6, llm_dim=llm.dim
    )
    torch.manual_seed(0)
    model = GillModel(llm, Adapters(spec, llm), max_caption_tokens=40)
    batch = AdapterBatch(model.tokenize(PROMPTS), torch.randn(len(PROMPTS), 6))
    for packed in (0.0, 1.0):
        model.losses(batch, LossWeights(), packed)["loss"].backward()
    spread = float(llm.logits(torch.randn(64, llm.dim)).std())
    settings = DecodingSettings(max_new_tokens=8, temperature=spread, image_bias=3 * spread)

    def tokens(rows: list[list[int]], seeds: list[int]) -> list[list[int]]:
        layout = prompt_layout(rows)
        embeddings = model.embed(layout.ids, torch.empty(0), torch.empty(0))
        return [a.tokens for a in decode(model, embeddings, layout.mask, settings, seeds)]

    together = tokens(batch.captions, [0, 1, 2])
    alone = [tokens([row], [seed])[0] for seed, row in enumerate(batch.captions)]
    if together != alone:
        raise AssertionError(f"decodes {together} together and {alone} alone")


def towers() -> Iterator[Line]:
    """Image-text models of open_clip."""
    import open_clip

    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    sizes = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    timm = {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "linear",
            "image_size": 32}  # fmt: skip
    kinds = {
        "ViT": (sizes, WORKS),
        "ViT with QuickGELU": (sizes, WORKS),
        "timm tower": (timm, WORKS),
        "CLIP ResNet": ({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, REFUSED),
    }
    for name, (tower, said) in kinds.items():
        described = {"embed_dim": 16, "vision_cfg": tower, "text_cfg": text}
        if "QuickGELU" in name:
            described["quick_gelu"] = True
        with tempfile.TemporaryDirectory() as folder:
            config = {"model_cfg": described, "preprocess_cfg": {"size": 32}}
            (Path(folder) / "open_clip_config.json").write_text(json.dumps(config))
            made = open_clip.create_model(f"local-dir:{folder}")
            torch.save(made.state_dict(), Path(folder) / "open_clip_pytorch_model.bin")
            found, why = outcome(lambda folder=folder: use_tower(folder))  # type: ignore[misc]
        yield Line("image-text model", name, said, found, why)


def use_tower(folder: str) -> None:
    """Encode an image and a caption."""
    encoder = vision.load_pretrained(f"local-dir:{folder}", "", CPU)
    size = encoder.image_size
    encoder.project(encoder.pooled(torch.zeros(1, 3, size, size)))
    encoder.text(["a cat"])


def generators() -> Iterator[Line]:
    """Image generators, as saved by diffusers; of those refused, their name is enough."""
    for key, (title, _) in micro_generators.PIPELINES.items():
        with tempfile.TemporaryDirectory() as folder:
            micro_generators.built(key).save_pretrained(folder)
            found, why = outcome(lambda folder=folder: use_generator(folder))  # type: ignore[misc]
        yield Line("image generator", title, WORKS, found, why)
    for kind, (title, _) in micro_generators.REFUSED.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model_index.json").write_text(json.dumps({"_class_name": kind}))
            found, why = outcome(lambda folder=folder: use_generator(folder))  # type: ignore[misc]
        yield Line("image generator", title, REFUSED, found, why)


def use_generator(folder: str) -> None:
    """Make a target and one step of an image from it."""
    generator = image_generator.load_pretrained(folder, CPU)
    generator.pipeline.default_sample_size = 8  # of Flux, which no configuration says
    generator.generate(generator.encode_text(["a cat"]), [0], 3.0, 1)


def as_page(lines: list[Line]) -> str:
    """The page of the documentation."""
    rows = [f"| {x.part} | {x.family} | {x.found} | {x.note} |" for x in lines]
    return "\n".join(
        [INTRODUCTION, "| part | family | outcome | note |", "|---|---|---|---|", *rows, ""]
    )


if __name__ == "__main__":
    sys.exit(main())
