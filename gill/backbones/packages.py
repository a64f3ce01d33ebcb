"""Files that Python packages ship, found without importing the packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def packaged(package: str, pattern: str) -> Path:
    """Return the one file or folder of an installed package that matches a glob pattern.

    The package is not imported: some need dependencies that only their own command wants.

    Raises:
        FileNotFoundError: the package is missing or ships nothing of that name.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"the package {package!r} with the embedded weights is not installed; run `make setup`"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(root.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"{root} has {len(found)} files that match {pattern!r}, not one")
    return found[0]


def package_version(distribution: str) -> str:
    """Version of an installed distribution, or ``absent``."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
