"""``gill generate`` and ``gill index``: answers to images and text; indexes of one's own images."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from flows.cli.errors import CommandError, as_command_error
from gill.inference.settings import EndOfText, Settings

ANSWER = "answer.json"
_ORDER = "order of --image and --text"
_SETTINGS = "Settings (without them those of the run's recipe)"


class InOrder(TyperCommand):
    """Keeps the order in which --image and --text are given; the parser alone groups them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the order, then parse as ever."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [option.name for option in given if option.name in ("image", "text")]
        return super().parse_args(ctx, args)


Model = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="An MLflow run id, an artifact's folder, a var folder or a released checkpoint; "
        "without it the last run.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def _setting(name: str, *flags: str) -> Any:
    """An option for a setting of inference, with the meaning that its declaration gives it."""
    meaning = str(Settings.model_fields[name].description)
    text = f"{meaning[0].upper()}{meaning[1:]}."
    return typer.Option(*flags, help=text, rich_help_panel=_SETTINGS, show_default=False)


def generate(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the answer and its images.")],
    image: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An image of the prompt.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text of the prompt.")] = None,
    index: Annotated[
        Path | None, typer.Option(help="An index that `gill index` made, to retrieve from.")
    ] = None,
    model: Model = None,
    device: Device = "auto",
    max_new_tokens: Annotated[int | None, _setting("max_new_tokens")] = None,
    min_new_tokens: Annotated[int | None, _setting("min_new_tokens")] = None,
    temperature: Annotated[float | None, _setting("temperature")] = None,
    top_p: Annotated[float | None, _setting("top_p")] = None,
    image_bias: Annotated[float | None, _setting("image_bias")] = None,
    end_of_text: Annotated[EndOfText | None, _setting("end_of_text")] = None,
    max_images: Annotated[int | None, _setting("max_images")] = None,
    seed: Annotated[int | None, _setting("seed")] = None,
    num_images: Annotated[int | None, _setting("num_images")] = None,
    guidance_scale: Annotated[float | None, _setting("guidance_scale")] = None,
    steps: Annotated[int | None, _setting("steps")] = None,
    batch_size: Annotated[int | None, _setting("batch_size")] = None,
    choice: Annotated[Literal["generate", "retrieve"] | None, _setting("choice")] = None,
    truncate_left: Annotated[bool | None, _setting("truncate_left", "--truncate-left")] = None,
) -> None:
    """Answer images and text, in the order in which they are given, with text and images."""
    _quiet()
    given = {"image": iter(image or ()), "text": iter(text or ())}
    prompt: list[tuple[str, Any]] = [(kind, next(given[kind])) for kind in ctx.meta[_ORDER]]
    settings = {
        "max_new_tokens": max_new_tokens, "min_new_tokens": min_new_tokens,
        "temperature": temperature, "top_p": top_p, "image_bias": image_bias,
        "max_images": max_images, "end_of_text": end_of_text,
        "seed": seed, "num_images": num_images,
        "guidance_scale": guidance_scale, "steps": steps, "batch_size": batch_size,
        "choice": choice, "truncate_left": truncate_left,
    }  # fmt: skip
    changes = {name: value for name, value in settings.items() if value is not None}
    with _mendable():
        _answer(prompt, out, index, model, device, changes)


def index(
    images: Annotated[Path, typer.Option(help="Folder, searched with all folders below.")],
    out: Annotated[Path, typer.Option(help="Folder for the index.")],
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Make an index of a folder of images, to retrieve from."""
    _quiet()
    with _mendable():
        if not images.is_dir():
            raise CommandError(f"--images {images} is no folder of images")
        _check_folder(out)
        runtime = _runtime(device)
        from tasks.inference.image_store import index_folder
        from tasks.inference.loading import load

        loaded = load(model, runtime=runtime)

        def progress(done: int, total: int) -> None:
            print(f"{done} of {total} files", file=sys.stderr)

        counts = index_folder(loaded.engine, images, out, progress)
    print(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))


def _quiet() -> None:
    """Keep loading bars and notices of libraries out of an answer."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "enable_nested_tensor is True", UserWarning)


def _mendable() -> AbstractContextManager[None]:
    """Errors of what the command names, which its user can mend.

    All that is refused by name is a ``ValueError``; what files and folders say is an ``OSError``.
    """
    from data.io.image_decoder import ImageError
    from data.manifest import DamagedArtifactError
    from data.shards import ShardError

    return as_command_error(ValueError, OSError, DamagedArtifactError, ImageError, ShardError)


def _runtime(device: str) -> Any:
    """The runtime on a device, which is there."""
    from tasks.config.parts import RuntimeConfig
    from tasks.parts.checks import check_device

    runtime = RuntimeConfig(device=device)
    check_device(runtime)
    return runtime


def _check_folder(out: Path) -> None:
    """See that a folder can be made, or is there."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise CommandError(f"--out {out} is a file, or lies below one; name a folder")
        if path.exists():
            if not os.access(path, os.W_OK | os.X_OK):
                raise CommandError(f"--out {out} cannot be written; name another folder")
            return


def _answer(
    prompt: Sequence[tuple[str, Any]],
    out: Path,
    index: Path | None,
    model: str | None,
    device: str,
    changes: dict[str, Any],
) -> None:
    items = _checked(prompt, out, changes)
    runtime = _runtime(device)
    from tasks.inference.loading import load

    loaded = load(model, index, runtime=runtime)
    if changes.get("choice") == "retrieve" and loaded.engine.index is None:
        raise CommandError("there is no index to retrieve from; give --index or choose generate")
    answer = loaded.engine.generate(items, **changes)
    _write(answer, loaded, prompt, out, changes)


def _checked(prompt: Sequence[tuple[str, Any]], out: Path, changes: dict[str, Any]) -> list[Any]:
    """The prompt's items, once all that can be wrong without the model is found to be right."""
    from data.safe_open import open_image

    Settings(**changes)
    if not prompt:
        raise CommandError("the prompt is empty; give --image FILE and --text TEXT in any order")
    items: list[Any] = []
    for kind, value in prompt:
        if kind == "text" and not value.strip():
            raise CommandError("a --text is blank; leave it out or give it words")
        items.append(open_image(value) if kind == "image" else value)
    _check_folder(out)
    if (out / ANSWER).exists():
        raise CommandError(f"{out} holds an answer already; name another --out")
    return items


def _write(
    answer: Sequence[Any],
    loaded: Any,
    prompt: Sequence[tuple[str, Any]],
    out: Path,
    changes: dict[str, Any],
) -> None:
    """Print the answer, and write it with its images."""
    from data.io.atomic import write_json
    from gill.inference.results import GeneratedImage, RetrievedImage

    out.mkdir(parents=True, exist_ok=True)
    record: list[dict[str, object]] = []
    for number, segment in enumerate(answer):
        described: dict[str, object] = {"type": type(segment).__name__}
        if isinstance(segment, GeneratedImage | RetrievedImage):
            path = out / f"{number:02d}-{described['type']}.png"
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
    asked = [{kind: str(value)} for kind, value in prompt]
    write_json(out / ANSWER, _finite({"prompt": asked, "settings": changes, "answer": record}))


def _finite(value: Any) -> Any:
    """A value as JSON knows it, which has neither infinity nor NaN: these become words."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _origin(segment: object) -> str:
    origin = getattr(segment, "origin", None)
    return f", from {origin}" if origin else ""
