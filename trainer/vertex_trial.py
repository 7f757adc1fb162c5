"""Reports the metrics of a trial to Vertex AI hyperparameter tuning.

Vertex starts the trainer once for each trial, with the trial's settings as flags, and reads the metric from a file. The
file has the format of the package `cloudml-hypertune`; the package itself is not needed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

_TRIAL_VARIABLE = "CLOUD_ML_TRIAL_ID"
_FILE_VARIABLE = "CLOUD_ML_HP_METRIC_FILE"
_DEFAULT_FILE = "/tmp/hypertune/output.metrics"


def report_trial(
    metrics: Mapping[str, float],
    *,
    step: int,
    environment: Mapping[str, str] = os.environ,
    now_sec: float | None = None,
) -> str | None:
    """Writes the metrics of this process's trial, one JSON object on each line. It replaces an earlier file.

    Args:
      metrics: the value of each metric, by the name in the tuning job's `metricId`.
      step: the step of the optimizer at which they were measured.
      environment: the environment variables, by which Vertex says which trial this is.
      now_sec: the time in seconds since 1970; None for the current time.

    Returns:
      The path of the file; None if Vertex does not run this process as a trial, in which case nothing is written.
    """
    if _TRIAL_VARIABLE not in environment and _FILE_VARIABLE not in environment:
        return None
    path = environment.get(_FILE_VARIABLE, _DEFAULT_FILE)
    shared = {
        "timestamp": time.time() if now_sec is None else now_sec,
        "trial": environment.get(_TRIAL_VARIABLE, "0"),
        "global_step": str(step),
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as stream:
        for name, value in metrics.items():
            # The package writes numbers as strings, so this does too.
            stream.write(json.dumps({**shared, name: str(float(value))}, sort_keys=True) + "\n")
    return path
