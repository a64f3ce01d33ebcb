"""A hook of mkdocs: the pages of the API reference, one for each package, from the source tree."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "gill": "The method in pure PyTorch: trained parts, losses, training, inference, metrics.",
    "data": "Shards and their readers, sources, the downloader, benchmark files.",
    "tasks": "Stages and what runs around them.",
    "flows": "The pipeline, its recipes, the command and the local servers.",
}
FOLDER = "reference/api"


def modules() -> dict[str, list[str]]:
    """The modules of each package, by the package's dotted name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for top in PACKAGES:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__init__" and "testing" not in parts:
                found[".".join(parts[:-1])].append(".".join(parts))
    return dict(sorted(found.items()))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each package, and one that lists them."""
    found = modules()
    index = ["# API", "", "Made from the docstrings. Names that begin with `_` are left out."]
    for top, purpose in PACKAGES.items():
        index += ["", f"## {top}", "", purpose, ""]
        for package, names in found.items():
            if package.partition(".")[0] == top:
                own = ", ".join(name.rpartition(".")[2] for name in names)
                index.append(f"- [`{package}`]({package}.md): {own}")
    pages = {"index": "\n".join(index)}
    for package, names in found.items():
        pages[package] = "\n\n".join([f"# {package}", *(f"::: {name}" for name in names)])
    for name, text in pages.items():
        files.append(File.generated(config, f"{FOLDER}/{name}.md", content=text + "\n"))
    return files
