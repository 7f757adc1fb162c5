"""Beam's own flags: every one is passed through, a misspelt one is an error, and local runs are repeatable."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners import create_runner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from configs.errors import InputError, did_you_mean
from pipelines.runners.dataflow import runner_kind

_LOCAL_RUNNERS = ("direct", "fnapi")


class _BeamArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise InputError(f"{message}. See the pipeline options of Apache Beam.")


def _all_beam_flags() -> argparse.ArgumentParser:
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False)
    for options in (PipelineOptions, *PipelineOptions.__subclasses__()):
        if "_add_argparse_args" in options.__dict__:
            options._add_argparse_args(parser)
    return parser


def parse_beam_options(flags: Sequence[str], *, own_flags: Sequence[str]) -> PipelineOptions:
    """Beam's options from the flags that our programs do not know.

    Args:
      flags: as on the command line.
      own_flags: names of the program's own flags, for suggestions.

    Raises:
      InputError: neither we nor Beam know a flag; Beam itself would ignore it.
    """
    parser = _all_beam_flags()
    _, unknown = parser.parse_known_args(list(flags))
    if unknown:
        known = [*own_flags, *(flag for action in parser._actions for flag in action.option_strings)]
        flag = unknown[0].split("=")[0]
        raise InputError(f"unknown flag {flag!r}.{did_you_mean(flag, known)} Pass --help for the flags.")
    return PipelineOptions(list(flags))


def _kind_of(options: PipelineOptions) -> str:
    return runner_kind(options.view_as(StandardOptions).runner or "direct")


def is_local(options: PipelineOptions) -> bool:
    """True if the pipeline runs in this process."""
    return _kind_of(options) in _LOCAL_RUNNERS


def is_dataflow(options: PipelineOptions) -> bool:
    """True if the pipeline runs in Google's Dataflow."""
    return _kind_of(options) == "dataflow"


def make_runner(options: PipelineOptions) -> Any:
    """The runner that the options name. For local runs it is always the same.

    Beam's DirectRunner chooses one of several runners by what is installed, and may download one. `FnApiRunner` is
    always installed, so it runs the same pipeline on every machine.

    Raises:
      InputError: there is no such runner.
    """
    if is_local(options):
        # It warns about containers that local runs do not use, and logs the traceback of what it then raises.
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        return FnApiRunner()
    name = options.view_as(StandardOptions).runner
    try:
        return create_runner(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"runner: Beam cannot make {name!r} ({error}).") from error
