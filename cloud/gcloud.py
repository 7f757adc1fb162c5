"""Runs Google's `gcloud`: checks that it is installed and new enough, and turns its errors into one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloud.remedies import gcloud_remedy
from configs.activity import doing
from configs.errors import InputError
from configs.network_faults import network_fault

# The oldest version that is accepted, from 2022. Everything was tested with 528; older versions may lack a flag.
_OLDEST = 400
_INSTALL = "Install it: https://cloud.google.com/sdk/docs/install. --dry_run shows what would be sent without it."


class UnreachableError(InputError):
    """No service can be reached from this machine."""


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run_command(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a program without input; returns its output and its messages as text.

    Raises:
      InputError: the program is missing, or cannot be run.
    """
    path = shutil.which(command[0])
    if path is None:
        raise InputError(f"{command[0]}: not found on this machine. {_INSTALL}")
    try:
        with doing(f"waiting for {_name(command)}"):
            return subprocess.run(
                [path, *command[1:]],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                check=False,
                errors="replace",
            )
    except OSError as error:
        raise InputError(f"{command[0]}: {path} cannot be run ({error.strerror or error}). {_INSTALL}") from error


def flags_of(values: Mapping[str, object]) -> list[str]:
    """Flags as `--name=value`. A mapping becomes `key=value,key=value`; values that are None or empty are left out."""
    flags = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={one}" for key, one in value.items())
        if value not in (None, ""):
            flags.append(f"--{name}={value}")
    return flags


class Gcloud:
    """Runs gcloud for one project and region.

    Args:
      project: the project that pays.
      region: the region to work in.
      run: runs a command.
    """

    def __init__(self, project: str, region: str, run: Runner = run_command) -> None:
        self.project = project
        self.region = region
        self._run = run

    def command(self, *words: str, **flags: object) -> list[str]:
        """A command that a person can read and type. Underscores in flag names become dashes."""
        named = {name.replace("_", "-"): value for name, value in flags.items()}
        return ["gcloud", *words, *flags_of({"project": self.project, "region": self.region, **named})]

    def require_new_enough(self) -> None:
        """Checks that gcloud is installed and knows the flags that are used.

        Raises:
          InputError: it is missing or too old.
        """
        versions = self._json(["gcloud", "version", "--format=json"])
        version = str(versions.get("Google Cloud SDK", "")) if isinstance(versions, dict) else ""
        number = re.match(r"\d+", version)
        if number and int(number[0]) < _OLDEST:
            raise InputError(
                f"gcloud: version {version} is too old; {_OLDEST} or newer is needed. Run: gcloud components update"
            )

    def call(self, command: Sequence[str]) -> Any:
        """Runs a command and reads its output.

        Args:
          command: from `command`.

        Returns:
          What gcloud printed as JSON; None if it printed nothing.

        Raises:
          InputError: gcloud failed; the message holds the last error line of gcloud.
        """
        return self._json([*command, "--format=json", "--quiet"])

    def listed(self, command: Sequence[str]) -> list[dict[str, Any]]:
        """Runs a command that lists resources. It raises the same errors as `call`."""
        answer = self.call(command) or []
        if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
            raise self._unexpected(command, answer, "a list")
        return answer

    def resource(self, command: Sequence[str], *, key: str = "name") -> dict[str, Any]:
        """Runs a command that returns one resource, with its name under `key`. It raises the same errors as `call`."""
        answer = self.call(command)
        if not isinstance(answer, dict) or not isinstance(answer.get(key), str):
            raise self._unexpected(command, answer, f"{key!r}")
        return answer

    @staticmethod
    def _unexpected(command: Sequence[str], answer: object, wanted: str) -> InputError:
        return InputError(
            f"{_name(command)}: gcloud's answer has not {wanted} ({str(answer)[:80]!r}). Run: gcloud components update"
        )

    def _json(self, command: Sequence[str]) -> Any:
        done = self._run(command)
        name = _name(command)
        if done.returncode != 0:
            if fault := network_fault(_error_lines(done.stderr)):
                # The host of a service in a region has the region in its name.
                region = f", and whether there is a region {self.region}" if self.region in fault else ""
                raise UnreachableError(f"{name}: {fault}. Check the network{region}.")
            said = last_error(done.stderr) or f"exit code {done.returncode}"
            remedy = gcloud_remedy(said, command, self.project)
            raise InputError(f"{name}: {said.rstrip('.')}. {remedy}".rstrip())
        try:
            return json.loads(done.stdout) if done.stdout.strip() else None
        except json.JSONDecodeError as error:
            raise InputError(
                f"{name}: gcloud's answer is not JSON ({done.stdout[:80]!r}). Run: gcloud components update"
            ) from error


def _name(command: Sequence[str]) -> str:
    # The words before the first flag name the command; its arguments may be long.
    return " ".join(word for word in command[:5] if not word.startswith("-"))


def _error_lines(stderr: str) -> str:
    """The lines of gcloud that begin an error; all of them if there is none, as after a crash of Python itself."""
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")]
    return "\n".join(lines) or stderr


def last_error(stderr: str) -> str:
    """The last error line of gcloud, without its prefix. Without one, the last line; "" if there is no line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    starts = [place for place, line in enumerate(lines) if line.startswith("ERROR:")]
    last = lines[starts[-1]] if starts else (lines or [""])[-1]
    if starts and last.endswith(":"):
        # Commands about Compute Engine say "Could not fetch resource:", and why on the next line.
        last += f" {' '.join(lines[starts[-1] + 1 : starts[-1] + 2]).removeprefix('- ')}"
    return re.sub(r"^ERROR: (\(gcloud[^)]*\) )?", "", last)
