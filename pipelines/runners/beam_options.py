"""Beam's own flags: every one is passed through, a misspelt one is an error, and local runs are repeatable."""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner

from configs.errors import InputError, cause_in_one_line, did_you_mean
from configs.install_hint import install_hint
from pipelines.runners.beam_noise import quiet_dask
from pipelines.runners.dataflow import GivenFlags, runner_kind

_LOCAL_RUNNERS = ("direct", "fnapi")
# By `runner_kind`. Beam has runners that its own list lacks.
_RUNNERS = {runner_kind(path): path for path in StandardOptions.ALL_KNOWN_RUNNERS} | {
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner"
}
# The extra of pyproject.toml that a runner needs, by its kind.
_EXTRAS = {"dask": "dask"}


class _BeamArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise InputError(f"{message}. See the pipeline options of Apache Beam.")


def _all_beam_flags() -> argparse.ArgumentParser:
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False)
    # By name, as Beam does it: of a module that was imported again, there are two classes.
    by_name = {str(options): options for options in (PipelineOptions, *PipelineOptions.__subclasses__())}
    for options in by_name.values():
        if "_add_argparse_args" in options.__dict__:
            options._add_argparse_args(parser)
    return parser


def _import_runner(name: str) -> type[PipelineRunner]:
    """The class of a runner: a name that Beam knows, with or without "Runner", or the full name of a class.

    Raises:
      InputError: there is no such runner, or it cannot be imported.
    """
    kind = runner_kind(name)
    path = _RUNNERS.get(kind) if "." not in name else name
    if path is None:
        names = [path.rpartition(".")[2] for path in _RUNNERS.values()]
        hint = did_you_mean(f"{kind}Runner", names)
        raise InputError(
            f"runner: Beam has no runner {name!r}.{hint} Pass one of {', '.join(names)}, or the full name of a class."
        )
    module, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except Exception as error:  # What a runner lacks shows in any way while it is imported.
        hint = f" {install_hint(_EXTRAS[kind])}" if kind in _EXTRAS else ""
        raise InputError(f"runner: {name!r} cannot be imported ({cause_in_one_line(error)}).{hint}") from error
    if not (inspect.isclass(found) and issubclass(found, PipelineRunner)):
        raise InputError(f"runner: {name!r} is no runner of Beam; the full name of a subclass of PipelineRunner is.")
    return found


def parse_beam_options(flags: Sequence[str], *, own_flags: Sequence[str]) -> PipelineOptions:
    """Beam's options from the flags that our programs do not know.

    Args:
      flags: as on the command line.
      own_flags: names of the program's own flags, for suggestions.

    Raises:
      InputError: there is no such runner; or neither we nor Beam know a flag, which Beam itself would ignore.
    """
    runner = GivenFlags(flags).value("--runner")
    if runner and runner_kind(runner) not in (*_LOCAL_RUNNERS, "dataflow"):
        # A runner's own flags are those of classes that its module defines.
        _import_runner(runner)
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
    runner = _import_runner(name)
    if runner_kind(name) == "dask":
        quiet_dask()
    try:
        return runner()
    except Exception as error:
        raise InputError(f"runner: Beam cannot make {name!r} ({cause_in_one_line(error)}).") from error


def has_one_worker(options: PipelineOptions) -> bool:
    """True if Beam in this process runs the pipeline, one bundle at a time; its own small job service does, too."""
    here = is_local(options) or options.view_as(PortableOptions).job_endpoint == "embed"
    return here and options.view_as(DirectOptions).direct_num_workers == 1


def moves_elements(runner: Any, options: PipelineOptions) -> bool:
    """Whether a runner can move elements to another worker than the one that made them.

    Beam's portable runners and Dataflow can. The others run transforms as they like; Beam's DaskRunner leaves a
    `Reshuffle` out.
    """
    return is_dataflow(options) or bool(runner.is_fnapi_compatible())
