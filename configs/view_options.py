"""The options of views: how many embeddings of an image there are, and how the further ones differ from the first.

They are the distortions of TensorFlow's `retrain.py` (2015 to 2018), with its names.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from configs.counts import counted
from configs.given_flags import by_flag
from configs.option import Options, given_values, option, options_of
from configs.rules import Percent, Switch, Whole
from configs.section import FieldError

MAX_VIEWS = 32

_PERCENT = Percent(at_least=0, at_most=99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions(Options):
    """How many views of an image are embedded, and how views 1 and further differ from view 0, which is the image.

    Raises:
      InputError: a value breaks its rule; there are several views and nothing that makes them differ, or the reverse.
    """

    views: int = option(
        1,
        Whole(1, at_most=MAX_VIEWS),
        help="embeddings of each image: the first of the image as it is, the others of the image flipped, cropped, "
        "scaled or brightened at random, for training. Use it for training lists only",
        decides="records",
        omits_default=True,
        metavar="K",
    )
    flip_left_right: bool = option(
        False,
        Switch(),
        help="with --views: half of the further views are mirrored",
        decides="records",
        omits_default=True,
    )
    random_crop: float = option(
        0.0,
        _PERCENT,
        help="with --views: a further view is a random crop of the image, which is P percent larger on each side",
        decides="records",
        omits_default=True,
        metavar="P",
        default_words="0",
    )
    random_scale: float = option(
        0.0,
        _PERCENT,
        help="with --views: a further view is a random crop of the image, enlarged by at most P percent",
        decides="records",
        omits_default=True,
        metavar="P",
        default_words="0",
    )
    random_brightness: float = option(
        0.0,
        _PERCENT,
        help="with --views: the pixels of a further view are multiplied by a factor from 1 - P/100 to 1 + P/100",
        decides="records",
        omits_default=True,
        metavar="P",
        default_words="0",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in DISTORTIONS if getattr(self, name)]
        if self.views == 1 and given:
            raise FieldError(
                f"{self.prefix}{given[0]}",
                f"is only for further views of an image, and there is one view. Set {self.prefix}views to 2 or more, "
                f"or leave {' and '.join(f'{self.prefix}{name}' for name in given)} out.",
            )
        if self.views > 1 and not given:
            raise FieldError(
                f"{self.prefix}views",
                f"says {self.views}, but nothing makes {counted(self.views, 'view')} differ. Set at least one of "
                f"{', '.join(f'{self.prefix}{name}' for name in DISTORTIONS)}, or leave {self.prefix}views out.",
            )


VIEW_OPTIONS = tuple(options_of(ViewOptions))
DISTORTIONS = VIEW_OPTIONS[1:]


def override(defaults: dict[str, Any], args: argparse.Namespace, owner: Any) -> dict[str, Any]:
    """The values of a recipe, with those that a command line gives.

    `--views 1` on a command line also turns off what the recipe says about further views, because there are none.

    Args:
      defaults: the values of the recipe by name.
      args: the result of a parser with the flags of `owner`.
      owner: the dataclass of the options, or an object of it.
    """
    given = given_values(args, owner)
    if given.get("views") == 1:
        defaults = {name: value for name, value in defaults.items() if name not in VIEW_OPTIONS}
    return {**defaults, **given}


def without_view_flags(words: Sequence[str]) -> list[str]:
    """The words of a command line without the flags of views."""
    flags = {f"--{no}{name}" for name in VIEW_OPTIONS for no in ("", "no-")}
    return [word for flag, _, given in by_flag(words) if flag not in flags for word in given]


def flags_of_held_out(words: Sequence[str], recipe: ViewOptions) -> list[str]:
    """The words of a command line for a list that models are measured on: its images are embedded as they are.

    Args:
      words: those for the training list.
      recipe: the options of the recipe that the words name.
    """
    return [*without_view_flags(words), *(["--views", "1"] if recipe.views > 1 else [])]


def flags_to_get(definition: Mapping[str, Any], recipe: ViewOptions) -> list[str]:
    """The flags of views that make the options of a recipe those of a job.

    Args:
      definition: of the job, as `configs.option.definition_of` makes it.
      recipe: the options of the recipe.
    """
    described = options_of(ViewOptions)
    wanted = {name: definition.get(name, described[name].default) for name in VIEW_OPTIONS}
    if wanted["views"] == 1:
        return ["--views", "1"] if recipe.views > 1 else []
    return [
        word
        for name, value in wanted.items()
        if value != getattr(recipe, name)
        for word in described[name].words_of(name, value)
    ]
