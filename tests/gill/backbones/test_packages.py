"""Weights that come in packages."""

import pytest

from gill.backbones import packages


def test_a_missing_package_names_the_remedy():
    with pytest.raises(FileNotFoundError, match="make setup"):
        packages.packaged("no_such_package_here", "*")
