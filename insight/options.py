"""The options that all programs of this package share: which record sets to read, and where to write."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from configs.arguments import OneLineParser
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of, same_option
from configs.rules import Switch
from trainer.arguments import split_paths
from trainer.options import DataOptions, Path, Paths, with_supported_paths

if TYPE_CHECKING:
    from trainer.data.record_sets import RecordSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetOptions(Options):
    """The record sets that a program reads."""

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    data_paths: tuple[str, ...] = option(
        REQUIRED,
        Paths("read"),
        help="shards, globs ('data/preproc/train*') or set prefixes to read; repeat or separate by commas",
        decides="neither",
        metavar="PATH",
    )
    input_dict: str | None = same_option(DataOptions, "input_dict", decides="neither", held_as=())

    def find_sets(self) -> tuple[RecordSet, ...]:
        """The record sets of `data_paths`. Programs call it first, so that a wrong name is told before all else.

        Raises:
          InputError: a path names no whole set.
        """
        from trainer.data.record_sets import find_record_sets

        return tuple(find_record_sets(self.data_paths, flag="data_paths", input_dict=self.input_dict))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions(SetOptions):
    """The record sets that a program reads, and the folder for the page and the tables that it writes."""

    output_path: str = option(
        REQUIRED,
        Path("a folder", "written"),
        help="folder for the page and the tables, local or gs://",
        decides="neither",
        metavar="DIR",
    )
    photo_dirs: tuple[str, ...] = same_option(DataOptions, "photo_dirs")
    overwrite: bool = option(
        False, Switch(can_be_unset=False), help="replace the files of an earlier run", decides="neither"
    )


OptionsT = TypeVar("OptionsT", bound=Options)


def parse_options(
    argv: Sequence[str] | None, owner: type[OptionsT], *, module: str, description: str, **parser_arguments: Any
) -> OptionsT:
    """Reads the command line of a program whose flags are the options of one dataclass.

    Args:
      argv: the arguments without the program's name; None for those of the process.
      owner: the dataclass.
      module: the program.
      description: what `--help` says that it does.
      **parser_arguments: of `OneLineParser`.

    Raises:
      InputError: a flag is unknown, missing or breaks its rule.
    """
    parser = OneLineParser(module=module, description=description, **parser_arguments)
    add_flags(parser, options_of(owner))
    given = given_values(parser.parse_args(argv), owner)
    for name, described in options_of(owner).items():
        if isinstance(described.rule, Paths) and name in given and not described.positional:
            given[name] = split_paths(given[name])
    return owner(**with_supported_paths(given, owner))
