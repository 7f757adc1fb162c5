"""Makes a virtual environment from lock files. It installs exactly the packages and versions that they list.

    python3.11 scripts/install_environment.py .venv --lock requirements.lock --project .

It does not resolve dependencies: it installs every package by its checksum, and ignores what the package requires. A
test makes sure that the lists are complete, and this program checks it again at the end. `make` runs this program; it
needs only the standard library.

uv installs several times as fast as pip, so it is used if it is available; it is one of the locked packages. It gets
the registries and certificates from pip's configuration. If uv is not available or fails, pip is used.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

EXIT_FAILED = 2
PYTHON_VERSIONS = ((3, 11), (3, 12), (3, 13))
_PACKAGES_PER_LINE = 20
# While an installer prints nothing, a line says so often that it is still at work.
_STILL_EVERY_SEC = 15.0
_BUILD_PACKAGES = ("setuptools", "wheel")
# pip's settings and the same settings as variables for uv. Hashes make it safe to take a file from any registry.
_UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
}
# The beginning of a script in an environment. The first form is for paths that are long or hold a space.
_INTERPRETER = re.compile(r"""#!/bin/sh\n'\''exec' "?(/[^"\n]*?)"? "\$0"|#!(/.*)""")
_COMMA_SEPARATED = ("UV_FIND_LINKS",)


class InstallError(Exception):
    """An installation failed. The message says in one line what failed and what to do."""


class Environment:
    """A virtual environment that is being made.

    Args:
      folder: the folder of the environment.
      installer: "uv", "pip", or "auto" for uv if it is available and else pip.
    """

    def __init__(self, folder: str, installer: str):
        self.folder = folder
        self.python = os.path.join(folder, "bin", "python")
        self._uv = os.path.join(folder, "bin", "uv")
        self._installer = installer

    def say(self, text: str) -> None:
        """Prints a line at once."""
        print(f"{self.folder}: {text}", flush=True)

    @contextlib.contextmanager
    def _still(self, what: str) -> Iterator[None]:
        """Within this context, says from time to time that something is still going on: uv and pip may be silent."""
        started, ended = time.monotonic(), threading.Event()

        def say_still() -> None:
            while not ended.wait(_STILL_EVERY_SEC):
                self.say(f"still {what} ({time.monotonic() - started:.0f} s)")

        threading.Thread(target=say_still, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def create(self) -> None:
        """Makes the environment, and deletes an earlier one.

        Raises:
          InstallError: this Python cannot make one.
        """
        self.say(f"making it, with Python {sys.version.split()[0]}")
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", self.folder],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            hint = (
                "Install the package python3-venv, or pass PYTHON=/path/to/another/python."
                if "ensurepip" in done.stdout + done.stderr
                else (done.stdout + done.stderr).strip().rpartition("\n")[2]
            )
            raise InstallError(f"{sys.executable} cannot make a virtual environment in {self.folder}. {hint}")

    def install(self, lock: str) -> None:
        """Installs the packages that a lock lists.

        Args:
          lock: path of a requirements file with hashes.

        Raises:
          InstallError: it could not be installed.
        """
        packages = dict(entries(lock))
        # Source packages are built with the build tools in the lock, and not with the newest ones.
        flags = ("--no-deps", "--require-hashes", "--no-build-isolation", "--requirement", lock)
        self._install_first(packages)
        if self._may_use_uv():
            self.say(f"installing up to {len(packages)} packages of {lock} with uv")
            if self._run_uv("install", *flags):
                return
            if self._installer == "uv":
                raise InstallError(f"uv could not install {lock}; its output is above.")
            self.say("uv failed; its output is above. Trying pip")
        self.say(f"installing up to {len(packages)} packages of {lock} with pip, which takes some minutes")
        if not self._run_pip("install", *flags):
            raise InstallError(
                f"pip could not install {lock}; its output is above. Check that the package registry that pip uses is "
                "reachable, and run the same command again."
            )

    def install_project(self, project: str) -> None:
        """Installs the project from its checkout: this adds its commands and does not copy its code.

        Args:
          project: folder of the checkout.

        Raises:
          InstallError: it could not be installed.
        """
        self.say("installing the project from this checkout")
        flags = ("--no-deps", "--no-build-isolation", "--editable", project)
        if not (self._may_use_uv() and self._run_uv("install", "--quiet", *flags)) and not self._run_pip(
            "install", "--quiet", *flags
        ):
            raise InstallError(f"the project in {project} could not be installed; pip's output is above.")
        self.say("the project is installed from this checkout, with its command hugs")

    def check(self) -> None:
        """Checks that the requirements of each package are installed.

        Raises:
          InstallError: a package is missing, or two packages do not fit together.
        """
        self.say("checking that nothing is missing")
        command = [self._uv, "pip", "check", "--python", self.python] if self._may_use_uv() else self._pip("check")
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            found = " ".join((done.stdout + done.stderr).split())
            raise InstallError(f"the lock is not complete: {found}. Run `make lock` and report this.")
        self.say("checked: the requirements of every package are installed")

    def _install_first(self, packages: Mapping[str, str]) -> None:
        """Installs the build tools with pip, and also uv if it is wanted and available.

        Args:
          packages: the packages of the lock; a build tool that is not in it is not installed.

        Raises:
          InstallError: the user asked for uv, and it is not available.
        """
        if self._installer != "pip" and "uv" in packages and not os.path.exists(self._uv):
            self.say(f"fetching the installer {packages['uv'].split()[0]}")
            reason = self._install_entries([packages["uv"]])
            if reason and self._installer == "uv":
                raise InstallError(f"uv is not available: {reason}")
            if reason:
                self.say(f"uv is not available ({reason}); using pip")
        self.say(f"fetching {' and '.join(_BUILD_PACKAGES)}")
        self._install_entries([packages[name] for name in _BUILD_PACKAGES if name in packages])

    def _install_entries(self, texts: Sequence[str]) -> str:
        """Installs entries of a lock with pip; returns the last line of its errors, or the empty text."""
        if not texts:
            return ""
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as requirements:
            requirements.writelines(texts)
            requirements.flush()
            # (Only one more try: if it fails, pip tries all packages again soon, and shows its errors.)
            flags = ("--quiet", "--retries=1", "--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement")
            command = self._pip("install", *flags, requirements.name)
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2] or "pip failed"

    def _may_use_uv(self) -> bool:
        return self._installer != "pip" and os.path.exists(self._uv)

    def _run_uv(self, verb: str, *words: str) -> bool:
        command = [self._uv, "pip", verb, "--python", self.python, "--index-strategy", "unsafe-best-match", *words]
        configuration = subprocess.run(
            self._pip("config", "list"), capture_output=True, text=True, errors="replace", check=False
        ).stdout
        # pip compiles what it installs, and uv only if it is asked to. Where Python may not write (another user's
        # environment, PYTHONDONTWRITEBYTECODE), each program would compile everything anew: 5 s for TensorFlow alone.
        environ = {"UV_COMPILE_BYTECODE": "1", **uv_variables(configuration), **os.environ}
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, errors="replace")
        assert process.stderr is not None
        with self._still("installing with uv"):
            for line in process.stderr:
                if not re.match(" [-+~] ", line):  # At the end, uv prints one such line for each package.
                    self.say(f"uv: {line.strip()}")
            return process.wait() == 0

    def _run_pip(self, *words: str) -> bool:
        """Runs pip and shows its progress. pip itself names every package or, if quiet, prints nothing for minutes."""
        process = subprocess.Popen(self._pip(*words), stdout=subprocess.PIPE, stderr=None, text=True, errors="replace")
        assert process.stdout is not None
        collected = 0
        with self._still("installing with pip"):
            for line in process.stdout:
                if line.startswith("Collecting "):
                    collected += 1
                    if collected % _PACKAGES_PER_LINE == 0:
                        self.say(f"pip has {collected} packages, the last one {line.split()[1]}")
                elif re.match(" *(Downloading|Using cached) .*GB|.*[0-9]{3}(\\.[0-9]+)? MB", line):
                    self.say(f"pip: {line.strip()}")  # Large files take a long time.
                elif line.startswith("Installing collected packages"):
                    self.say(f"pip has all {collected} and unpacks them")
            return process.wait() == 0

    def _pip(self, *words: str) -> list[str]:
        return [self.python, "-m", "pip", "--disable-pip-version-check", *words]


def made_here(folder: str) -> bool:
    """Whether an environment can run and has not been moved: its scripts hold the path of their interpreter.

    The scripts of a moved or copied environment would start the interpreter at the old place, if there is one.
    """
    try:
        with open(os.path.join(folder, "bin", "pip"), encoding="utf-8", errors="surrogateescape") as stream:
            found = _INTERPRETER.match(stream.read(4096))
        python = (found[1] or found[2]) if found else ""
        return os.path.samefile(os.path.dirname(python), os.path.join(folder, "bin")) and os.path.exists(python)
    except OSError:
        return False


def link_to_elsewhere(folder: str) -> str:
    """The folder to which the folder of an environment is a link, unless that is in the same checkout; else nothing."""
    folder = os.path.abspath(folder)
    here, real = os.path.realpath(os.path.dirname(folder)), os.path.realpath(folder)
    return real if os.path.islink(folder) and os.path.commonpath([here, real]) != here else ""


def entries(lock: str) -> Iterator[tuple[str, str]]:
    """The packages of a lock.

    Args:
      lock: path of a requirements file in which an entry begins in the first column.

    Yields:
      Name and text of each entry, with its hashes.
    """
    with open(lock, encoding="utf-8") as stream:
        for match in re.finditer(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)==.*\n(?:[ \t]+.*\n?)*", stream.read()):
            yield match[1], match[0]


def uv_variables(configuration: str) -> Mapping[str, str]:
    """The configuration of pip as variables for uv, because uv does not read pip's files.

    Args:
      configuration: the output of `pip config list`: lines such as global.index-url='https://…'. A setting for
        `install` overrides a global one, and a setting of the environment overrides both.
    """
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in configuration.splitlines():
            name, _, value = line.partition("=")
            where, _, setting = name.rpartition(".")
            variable = _UV_VARIABLES.get(setting)
            if where == section and variable is not None:
                words = str(ast.literal_eval(value)).split()
                found[variable] = ("," if variable in _COMMA_SEPARATED else " ").join(words)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Makes an environment, installs the project into an existing one, or deletes the stamps of a moved one.

    Raises:
      InstallError: a package could not be installed, or the folder is a link to elsewhere.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", help="folder of the environment")
    parser.add_argument("--lock", action="append", default=[], help="a requirements file with hashes; may be repeated")
    parser.add_argument("--project", help="folder of the checkout, whose commands are installed as well")
    parser.add_argument("--keep", action="store_true", help="add to an existing environment")
    parser.add_argument("--forget", metavar="STAMP", nargs="+", help="delete these if the folder was made elsewhere")
    parser.add_argument("--check", action="store_true", help="only check that it may be made in the folder")
    parser.add_argument("--installer", choices=("auto", "uv", "pip"), default="auto")
    args = parser.parse_args(argv)
    elsewhere = link_to_elsewhere(args.folder)
    if args.forget:
        if not elsewhere and not made_here(args.folder):
            for stamp in filter(os.path.exists, args.forget):
                os.remove(stamp)
        return
    if elsewhere:
        # Another checkout may use it, and the first step of making an environment is to delete all that the folder has.
        raise InstallError(
            f"{args.folder} is a link to {elsewhere}, and make would change and may empty the environment there. "
            f"Remove the link with `rm {shlex.quote(args.folder)}`: make then makes an environment here. Or run the "
            f"programs in {os.path.join(args.folder, 'bin')} without make."
        )
    if args.check:
        return
    if sys.version_info[:2] not in PYTHON_VERSIONS:
        wanted = ", ".join(f"{major}.{minor}" for major, minor in PYTHON_VERSIONS)
        raise InstallError(
            f"Python {wanted} is needed. Found: {sys.version.split()[0]} ({sys.executable}). "
            "Pass PYTHON=/path/to/python3.11."
        )
    begun = time.monotonic()
    environment = Environment(args.folder, args.installer)
    if not args.keep:
        environment.create()
    elif not os.path.exists(environment.python):
        raise InstallError(f"{args.folder} is not an environment that can be extended. `make setup` makes it.")
    for lock in args.lock:
        environment.install(lock)
    if args.project:
        environment.install_project(args.project)
    if args.lock:
        environment.check()
        environment.say(f"done, after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted; the same command begins again", file=sys.stderr)
        sys.exit(130)
