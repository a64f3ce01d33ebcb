"""A rehearsal of ``opt-6.7b`` with micro sizes, and the command on it in a process of its own."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from flows.rehearsal.sizes import Parts, Rehearsal, Splits
from gill.backbones.testing.published import ClipSize, DiffusionSize, OptSize

ROOT = Path(__file__).parents[1]
CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49_408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip
PUBLISHED = Parts(
    OptSize(3, 32, 2, 64, 607, 256, 600),
    ClipSize(CLIP),
    DiffusionSize(
        image_size=32, denoising=400.0, decoding=200.0, channels=(8, 8), blocks=1, heads=2,
        vae_channels=(8, 8), groups=2, text_width=16, text_layers=1, text_heads=2,
    ),
)  # fmt: skip
MICRO = Rehearsal(
    recipe="opt-6.7b",
    published=PUBLISHED,
    parts=Parts(
        replace(PUBLISHED.language, layers=2),
        PUBLISHED.vision.with_layers(2),
        replace(PUBLISHED.generator, image_size=16, denoising=100.0, decoding=50.0),
    ),
    whole=Splits(1000, 50, 50),
    pairs=Splits(8, 16, 4),
    steps=2,
    prompts=16,
    captions=2,
)
_COMMAND = """
import sys
from flows.rehearsal import sizes
from micro_rehearsal import MICRO
sizes.REHEARSALS["opt-6.7b"] = MICRO
from flows.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


def command(var: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``gill rehearse`` with the micro sizes in the place of the published ones."""
    return subprocess.run(
        [sys.executable, "-c", _COMMAND, "rehearse", *arguments],
        cwd=ROOT,
        env={**os.environ, "GILL_VAR": str(var), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
             "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
