"""The command ``python -m gill``: answers to images and text; indexes of one's own images."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.config.parts import RuntimeConfig

ANSWER = "answer.json"
_HELP = {
    "max_new_tokens": "tokens of the answer at most; an image counts as one",
    "min_new_tokens": "tokens before the answer may end or show an image",
    "temperature": "0 takes the likeliest token",
    "top_p": "sample from the likeliest tokens with this probability together",
    "image_bias": "raise to see images sooner, inf for at once, -inf for never",
    "max_images": "places with images at most",
    "seed": "the same seed gives the same answer",
    "num_images": "images at each place, ranked",
    "guidance_scale": "of the image generator",
    "steps": "of the image generator",
    "batch_size": "images that are sampled together",
    "choice": "generate or retrieve every image instead of letting the model choose",
    "truncate_left": "cut a prompt that is too long from the left",
}


class CommandError(ValueError):
    """An argument that does not fit."""


class _Item(argparse.Action):
    """Collects --image and --text in the order in which they are given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.prompt = [*(namespace.prompt or []), (self.dest, values)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors that the user can mend are one line on stderr and status 2."""
    # The settings' names and defaults come from the code, and that imports torch.
    from data.artifacts import DamagedArtifactError
    from data.safe_open import ImageFileError
    from data.shards import ShardError
    from gill.inference.prompts import PromptError
    from tasks.inference.image_store import ImageStoreError
    from tasks.inference.loading import LoadError

    _quiet()
    given = _parser().parse_args(arguments)
    try:
        status: int = given.run(given)
    except (
        ImageStoreError, CommandError, DamagedArtifactError, LoadError, ImageFileError, PromptError,
        ShardError,
    ) as error:  # fmt: skip
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _quiet() -> None:
    """Keep loading bars and notices of libraries out of an answer."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "enable_nested_tensor is True", UserWarning)


def _parser() -> argparse.ArgumentParser:
    from gill.decision import CHOICES
    from gill.inference.settings import Settings

    parser = argparse.ArgumentParser(prog="python -m gill", description=__doc__)
    commands = parser.add_subparsers(required=True)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model",
        metavar="RUN",
        help="an MLflow run id, an artifact's folder, a var folder or a released checkpoint; "
        "without it the last run",
    )
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")

    generate = commands.add_parser(
        "generate", parents=[model], help="answer images and text, in the order they are given"
    )
    generate.set_defaults(run=_generate, prompt=None)
    generate.add_argument("--image", action=_Item, type=Path, metavar="FILE", help="an image")
    generate.add_argument("--text", action=_Item, metavar="TEXT", help="text")
    generate.add_argument("--out", type=Path, required=True, help="folder for answer and images")
    generate.add_argument("--index", type=Path, help="an index that `python -m gill index` made")
    settings = generate.add_argument_group("settings")
    for field in dataclasses.fields(Settings):
        name = f"--{field.name.replace('_', '-')}"
        if field.name == "choice":
            settings.add_argument(name, choices=CHOICES, help=_HELP[field.name])
        elif field.name == "truncate_left":
            settings.add_argument(name, action="store_true", default=None, help=_HELP[field.name])
        else:
            kind = type(field.default)
            settings.add_argument(name, type=kind, metavar=kind.__name__, help=_HELP[field.name])

    index = commands.add_parser(
        "index", parents=[model], help="make an index of a folder of images, to retrieve from"
    )
    index.set_defaults(run=_index)
    index.add_argument("--images", type=Path, required=True, help="folder, searched with all below")
    index.add_argument("--out", type=Path, required=True, help="folder for the index")
    return parser


def _generate(given: argparse.Namespace) -> int:
    from data.artifacts import write_json
    from data.safe_open import open_image
    from gill.inference.prompts import Item
    from gill.inference.results import GeneratedImage, RetrievedImage
    from gill.inference.settings import Settings
    from tasks.inference.loading import load

    changes = {
        field.name: getattr(given, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(given, field.name) is not None
    }
    # All that can be wrong without the model is found before it is loaded.
    try:
        Settings(**changes)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if not given.prompt:
        raise CommandError("the prompt is empty; give --image FILE and --text TEXT in any order")
    items: list[Item] = []
    for kind, value in given.prompt:
        if kind == "text" and not value.strip():
            raise CommandError("a --text is blank; leave it out or give it words")
        items.append(open_image(value) if kind == "image" else value)
    if (given.out / ANSWER).exists():
        raise CommandError(f"{given.out} holds an answer already; name another --out")
    if given.out.exists() and not given.out.is_dir():
        raise CommandError(f"--out {given.out} is a file; name a folder")

    loaded = load(given.model, given.index, runtime=RuntimeConfig(device=given.device))
    if changes.get("choice") == "retrieve" and loaded.engine.index is None:
        raise CommandError("there is no index to retrieve from; give --index or choose generate")
    answer = loaded.engine.generate(items, **changes)
    given.out.mkdir(parents=True, exist_ok=True)
    record: list[dict[str, object]] = []
    for number, segment in enumerate(answer):
        described: dict[str, object] = {"type": type(segment).__name__}
        if isinstance(segment, GeneratedImage | RetrievedImage):
            path = given.out / f"{number:02d}-{described['type']}.png"
            loaded.image(segment).save(path)
            described["file"] = path.name
            print(f"{path}  (score {segment.score:.3f}{_origin(segment)})")
        described |= {
            field.name: getattr(segment, field.name)
            for field in dataclasses.fields(segment)
            if field.name != "image"
        }
        if described["type"] == "Text":
            print(described["text"])
        elif described["type"] == "Decision":
            print(f"[{described['choice']}: {described['reason']}]")
        record.append(described)
    prompt = [{kind: str(value)} for kind, value in given.prompt]
    write_json(given.out / ANSWER, {"prompt": prompt, "settings": changes, "answer": record})
    return 0


def _origin(segment: object) -> str:
    origin = getattr(segment, "origin", None)
    return f", from {origin}" if origin else ""


def _index(given: argparse.Namespace) -> int:
    from tasks.inference.image_store import index_folder
    from tasks.inference.loading import load

    loaded = load(given.model, runtime=RuntimeConfig(device=given.device))

    def progress(done: int, total: int) -> None:
        print(f"{done} of {total} files", file=sys.stderr)

    counts = index_folder(loaded.engine, given.images, given.out, progress)
    print(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))
    return 0
