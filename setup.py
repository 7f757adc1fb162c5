"""The packaging entry point that Beam workers use (`--setup_file ./setup.py`); pyproject.toml has the metadata."""

from setuptools import setup

setup()
