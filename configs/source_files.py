"""The files of a checkout that belong to the project. Workers and containers without the project get these files."""

from __future__ import annotations

import os
import tomllib

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BESIDE_PACKAGES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
_SUFFIXES = (".py", ".c", ".yaml", ".txt", ".typed", ".html", ".css", ".json.gz")


def source_files(root: str = REPOSITORY) -> list[str]:
    """The files from which the project is built, as paths relative to the checkout.

    Raises:
      FileNotFoundError: the folder is not a checkout.
    """
    with open(os.path.join(root, "pyproject.toml"), "rb") as stream:
        patterns = tomllib.load(stream)["tool"]["setuptools"]["packages"]["find"]["include"]
    modules = []
    for package in sorted(pattern.removesuffix("*") for pattern in patterns):
        os.listdir(os.path.join(root, package))  # This raises an exception if the package is missing.
        for folder, _, names in os.walk(os.path.join(root, package)):
            modules += [os.path.join(os.path.relpath(folder, root), name) for name in names if name.endswith(_SUFFIXES)]
    return [*_BESIDE_PACKAGES, *sorted(modules)]
