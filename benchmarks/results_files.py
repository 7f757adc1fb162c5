"""The results of runs of `benchmarks.run` in `benchmarks/results/`: a JSON file for each run, its table beside it."""

from __future__ import annotations

import datetime
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.photos import ROOT
from configs.errors import InputError

FOLDER = ROOT / "benchmarks" / "results"
_FORMAT = 1
_KEPT = ("benchmark", "rows", "wall_sec", "error", "photos", "cores", "measured", "peers", "core_ms")


def write(folder: pathlib.Path, *, machine: Mapping[str, Any], results: Sequence[Any], quick: bool, table: str) -> str:
    """Writes the results of a run; returns the path of the JSON file.

    Args:
      folder: where they are kept.
      machine: as `benchmarks.machine.machine` gives it, before the run.
      results: of the benchmarks, as the last lines of their outputs say.
      quick: whether the sizes were small.
      table: the results as Markdown.
    """
    now = datetime.datetime.now(datetime.UTC)
    processor = re.sub(r"[^a-z0-9]+", "-", machine["processor"].lower()).strip("-")
    name = f"{now:%Y-%m-%d-%H%M%S}-{processor}-{machine['cores']}-cores{'-quick' * quick}"
    run = {
        "format": _FORMAT,
        "when": now.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": dict(machine),
        "results": [{key: result[key] for key in _KEPT if key in result} for result in results],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    return str(path)


def read(path: str) -> dict[str, Any]:
    """The results of a run.

    Raises:
      InputError: it is no file that `write` made.
    """
    try:
        run = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as the results of benchmarks ({_cause(error)}). {_HINT}") from error
    try:
        if run["format"] != _FORMAT:
            raise InputError(f"{path}: the format must be {_FORMAT}. Received: {run['format']!r}. {_HINT}")
        for fact in ("processor", "cores", "arithmetic", "memory_gb", "versions"):
            run["machine"][fact]
        run["when"], run["quick"]
        for result in run["results"]:
            for row in result["rows"]:
                row["figure"], row["ours"], row["ratio"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the results of benchmarks (no {error}). {_HINT}") from error
    return dict(run)


def newest(count: int, folder: pathlib.Path = FOLDER) -> list[str]:
    """The paths of the newest results, the oldest of them first.

    Raises:
      InputError: there are not so many.
    """
    paths = sorted(str(path) for path in folder.glob("*.json"))
    if len(paths) < count:
        raise InputError(
            f"{folder}: two runs are wanted to compare, and here {'are' if len(paths) != 1 else 'is'} "
            f"{len(paths) or 'none'}. Run make bench first, or name two files."
        )
    return paths[-count:]


_HINT = "Give a .json file that make bench wrote to benchmarks/results/."


def _cause(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())
