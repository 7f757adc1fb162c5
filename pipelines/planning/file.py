"""The file of a plan: `pipelines.plan` writes it, and the run that it was made for reads it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

from configs.errors import InputError
from configs.json_text import json_line
from configs.option import time_deciding
from configs.printed_commands import program_command
from configs.recipe import PreprocessOptions
from pipelines.checks.preflight import ScannedLists
from preprocess.jobs.planned_cost import PlannedCost
from preprocess.machine.cores import available_cores
from preprocess.records.views import Views
from preprocess.storage.base import Storage, read_file, write_file
from preprocess.storage.uris import has_scheme

PLAN_FORMAT = "hugs_plan/1"
Where = Literal["here", "dataflow", "elsewhere"]
_WRONG = "Give a file that `hugs plan` wrote, or delete this one."


def planned_options(options: PreprocessOptions, batch_size: int | None) -> dict[str, Any]:
    """The options on which the time of a run depends, as JSON: as `time_deciding` of `JobOptions` gives them."""
    return {**time_deciding(options), "batch_size": batch_size}


def check_output(path: str, storage: Storage) -> None:
    """Makes sure that a plan can be written at `path`, and that it replaces at most an older plan.

    Raises:
      InputError: a directory or another file lies there, the folder does not exist, or storage cannot be read.
    """
    folder = os.path.dirname(path) or "."
    if not has_scheme(path) and (os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK)):
        raise InputError(f"--output: cannot write a file at {path!r}. Give a file in a folder that is there.")
    try:
        is_free = _read(path, storage).get("format") == PLAN_FORMAT
    except FileNotFoundError:
        is_free = True
    except OSError as error:
        raise InputError(f"--output: cannot look at {path!r} ({error}).") from error
    except ValueError:
        is_free = False
    if not is_free:
        raise InputError(f"--output: {path!r} is there and is no plan. Give another file, or delete it.")


def write_plan(plan: Mapping[str, Any], path: str, storage: Storage) -> None:
    """Writes a plan.

    Raises:
      InputError: storage cannot be written to.
    """
    try:
        write_file(storage, path, json_line(plan, indent=1))
    except OSError as error:
        raise InputError(f"--output: cannot write {path!r} ({error}).") from error


def _read(path: str, storage: Storage) -> dict[str, Any]:
    """The content of a plan. Raises ValueError if it is not a JSON object."""
    try:
        data = json.loads(read_file(storage, path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    return data


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunMachines:
    """The machines on which a job will run.

    Attributes:
      where: the place: this machine, Dataflow, or another runner.
      machine_type: the machine type of Dataflow's workers.
      max_workers: the largest number of Dataflow's workers.
    """

    where: Where
    machine_type: str | None = None
    max_workers: int | None = None


def runs_on(beam_options: Any) -> RunMachines:
    """The machines on which a job with these options of Beam will run."""
    from apache_beam.options.pipeline_options import WorkerOptions

    from pipelines.runners.beam_options import is_dataflow, is_local

    if is_local(beam_options):
        return RunMachines(where="here")
    if not is_dataflow(beam_options):
        return RunMachines(where="elsewhere")
    workers = beam_options.view_as(WorkerOptions)
    return RunMachines(where="dataflow", machine_type=workers.machine_type, max_workers=workers.max_num_workers or None)


def find_planned_cost(
    path: str,
    *,
    lists: ScannedLists,
    options: Mapping[str, Any],
    machines: RunMachines,
    storage: Storage,
    views: Views | None = None,
) -> PlannedCost | None:
    """Reads the planned cost of lists from a plan. If the plan was not made for this run, prints why and returns None.

    Args:
      path: the plan.
      lists: the lists to embed.
      options: the options of the run, as `time_deciding` gives them.
      machines: the machines on which the job will run.
      storage: opens the plan.
      views: of each image; None for one. A plan has other ones for the training list than for the others.

    Raises:
      InputError: the file cannot be read, or is not a plan.
    """
    try:
        plan = _read(path, storage)
        if plan.get("format") != PLAN_FORMAT:
            raise InputError(f"--prediction: {path!r} is no plan of this version. {_WRONG}")
        entry = next((entry for entry in plan["lists"] if entry["sha256"] == list(lists.sha256)), None)
        why_not = _why_not(plan, entry, options=options, views=views, machines=machines)
        if entry is not None and why_not is None:
            predictions = entry["predictions"]
            return PlannedCost.from_json(predictions[machines.where] or predictions["elsewhere"])
    except FileNotFoundError as error:
        raise InputError(f"--prediction: there is no file {path!r}. `{program_command('plan')}` makes one.") from error
    except OSError as error:
        raise InputError(f"--prediction: cannot read {path!r} ({error}).") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--prediction: {path!r} is damaged ({error!r}). {_WRONG}") from error
    print(f"{path}: {why_not}; going without its prediction. Make a new plan if you want one.", file=sys.stderr)
    return None


def _why_not(
    plan: Mapping[str, Any],
    entry: Any,
    *,
    options: Mapping[str, Any],
    views: Views | None,
    machines: RunMachines,
) -> str | None:
    """Why a plan was not made for a run; None if it was."""
    if entry is None:
        return "the list has changed since, or is not in it"
    differing = [name for name, value in options.items() if plan["options"].get(name) != value]
    if entry.get("views") != (None if views is None else views.to_json()):
        differing.append("number or kind of views")
    if differing:
        return f"made for another {' and '.join(differing)}"
    if machines.where == "here" and plan["machine"]["cores"] != available_cores():
        return f"made on a machine with {plan['machine']['cores']} cores, and this one has {available_cores()}"
    dataflow = plan["dataflow"]
    if machines.where == "dataflow" and dataflow["why_not"] is None:
        planned = (dataflow["machine_type"], dataflow["max_workers"])
        if (machines.machine_type, machines.max_workers) != planned:
            return f"made for at most {planned[1]} workers of type {planned[0]}"
    return None
