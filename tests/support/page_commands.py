"""The commands that the pages tell people to type, and the flags that our programs know."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence

from configs.printed_commands import PROGRAMS

ROOT = pathlib.Path(__file__).parents[2]
# The modules whose flags a script takes, before and after "--".
SCRIPTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "./hugs_preproc.sh": (("pipelines.preproc", "pipelines.embed"), ()),
    "./hugs_train.sh": (("cloud.train",), ("trainer.task",)),
    "./hugs_deploy.sh": (("cloud.deploy",), ()),
}
# Programs that also take the flags of Beam.
_ON_BEAM = ("pipelines.embed", "pipelines.predict", "pipelines.preproc")
# A command of one of these, up to what ends it in the shell.
_COMMAND = re.compile(r"(?:^|(?<=[\s(;`$]))((?:gcloud|hugs|\./hugs_\w+\.sh) [^\n;|&`]*)")


def commands_of(page: str) -> Iterator[list[str]]:
    """The words of each command in a page's blocks and sentences, with the variables of the shell as they are."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    parts = [part for language, part in re.findall(r"(?ms)^```(\w*)\n(.*?)^```", text) if not language]
    parts += re.findall(r"`((?:gcloud|hugs|\./hugs_\w+\.sh) [^`\n]*)`", text)
    for part in parts:
        for command in _COMMAND.findall(part):
            yield shlex.split(re.sub(r"\$\([^)]*\)|\)$", "X", command).replace("[", "").replace("]", ""), comments=True)


def given(words: Sequence[str]) -> set[str]:
    """The flags among the words of a command."""
    return {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}


@functools.cache
def flags_of(module: str) -> frozenset[str]:
    """The flags of a program, as its help names them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
    return frozenset(re.findall(r"(?<![\w-])--\w[\w-]*", text.getvalue()))


@functools.cache
def _flags_of_beam() -> frozenset[str]:
    from apache_beam.options.pipeline_options import PipelineOptions

    names = PipelineOptions([]).get_all_options()
    # Beam defines the options of Dask in a module that needs Dask.
    return frozenset(f"--{name}" for name in [*names, "dask_client_address"])


def unknown_flags(command: Sequence[str]) -> set[str]:
    """The flags of a command of ours that its program does not know.

    Args:
      command: its words; the first is `hugs` or a script.
    """
    program, *rest = command
    split = rest.index("--") if "--" in rest else len(rest)
    before, after = SCRIPTS[program] if program in SCRIPTS else ((PROGRAMS[rest[0]][0],), ())
    unknown = given(rest[:split]).difference(*map(flags_of, before))
    if unknown and any(module in _ON_BEAM for module in before):
        unknown -= _flags_of_beam()
    return unknown | given(rest[split:]).difference(*map(flags_of, after))
