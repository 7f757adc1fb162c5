"""Tells a person how to install a missing part of the project: from the checkout, not from a package index.

On the index, the name `hugs` belongs to another project.
"""

from __future__ import annotations

import os
import shlex
import sys

from configs.source_files import REPOSITORY


def install_hint(extra: str) -> str:
    """A sentence with the command to run.

    Args:
      extra: the extra of pyproject.toml that has the missing part.
    """
    if os.path.exists(os.path.join(REPOSITORY, "pyproject.toml")):
        command = shlex.join([sys.executable, "-m", "pip", "install", "--editable", f"{REPOSITORY}[{extra}]"])
        return (
            f"Install it: {command}; or use {os.path.join(REPOSITORY, '.venv')}, which `make setup` makes there and "
            "which has it."
        )
    return (
        f"Install the project with its extra {extra!r}, from its checkout: pip install 'CHECKOUT[{extra}]'; the "
        "containers of the Dockerfile have what they need."
    )
