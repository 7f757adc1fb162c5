"""Lets Beam start a job in half the time: it remembers what it would find out again and again.

Beam asks for the signature of each method of each DoFn eight times a job, and builds a parser of all options each time
that it looks at one of them. Neither changes in a process.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import sys
import types
import weakref


def _remembering_signatures(find):
    """`get_function_args_defaults`, which looks at each function once."""
    found = {True: weakref.WeakKeyDictionary(), False: weakref.WeakKeyDictionary()}

    @functools.wraps(find)
    def args_and_defaults(function):
        is_bound = isinstance(function, types.MethodType)
        key = function.__func__ if is_bound else function
        if not isinstance(key, types.FunctionType):
            return find(function)
        if key not in found[is_bound]:
            found[is_bound][key] = find(function)
        args, defaults = found[is_bound][key]
        return [*args], [*defaults]

    return args_and_defaults


def _remembering_options(view_as):
    """`PipelineOptions.view_as`, which parses the same flags once for each of Beam's classes."""
    parsed = {}

    @functools.wraps(view_as)
    def view(options, cls):
        if options._flags is None or cls.__module__ != view_as.__module__:
            return view_as(options, cls)
        key = cls, *options._flags
        if key not in parsed:
            parsed[key] = vars(cls(options._flags)._visible_options)
        values = {
            name: value.copy() if isinstance(value, list | dict) else value for name, value in parsed[key].items()
        }
        found = cls.__new__(cls)
        found._flags, found._visible_options = options._flags, argparse.Namespace(**values)
        for name, value in values.items():
            options._all_options.setdefault(name, value)
        found._all_options = options._all_options
        return found

    return view


@functools.cache
def _quicken() -> None:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms import core

    assert list(inspect.signature(core.get_function_args_defaults).parameters) == ["f"]
    core.get_function_args_defaults = _remembering_signatures(core.get_function_args_defaults)
    PipelineOptions.view_as = _remembering_options(PipelineOptions.view_as)


def quicken_beam() -> None:
    """Does so if Beam is imported."""
    if "apache_beam.runners.runner" in sys.modules:  # It imports the modules that are changed.
        _quicken()
