"""The views of a record set: how many embeddings each image has, and how its distorted copies were made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.errors import InputError

if TYPE_CHECKING:
    from trainer.data.record_sets import RecordSet

_MAX_VIEWS = 32
_MAX_PERCENT = 99


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetViews:
    """The field `views` of a manifest.

    Attributes:
      count: the embeddings of each image, 2 to 32. View 0 is that of the undistorted image.
      flip_left_right: whether half of the other views are mirrored.
      random_crop: by how many percent a view is enlarged before it is cropped at random.
      random_scale: by how many percent more it is enlarged at most, at random.
      random_brightness: by how many percent its brightness changes at most, at random.
    """

    count: int
    flip_left_right: bool
    random_crop: float
    random_scale: float
    random_brightness: float

    def __post_init__(self) -> None:
        if type(self.count) is not int or not 1 <= self.count <= _MAX_VIEWS:
            raise ValueError(f"count must be a whole number from 1 to {_MAX_VIEWS}, not {self.count!r}")
        if type(self.flip_left_right) is not bool:
            raise ValueError(f"flip_left_right must be true or false, not {self.flip_left_right!r}")
        for name in ("random_crop", "random_scale", "random_brightness"):
            percent = getattr(self, name)
            if type(percent) not in (int, float) or not 0 <= percent <= _MAX_PERCENT:
                raise ValueError(f"{name} must be a number of percent from 0 to {_MAX_PERCENT}, not {percent!r}")

    def describe(self) -> str:
        """For example "4 views (mirrored, crop 10 %)"."""
        how = ["mirrored"] if self.flip_left_right else []
        percents = {name: getattr(self, f"random_{name}") for name in ("crop", "scale", "brightness")}
        how += [f"{name} {percent:g} %" for name, percent in percents.items() if percent]
        return f"{self.count} views ({', '.join(how) or 'not distorted'})"


def views_of_manifest(raw: bytes, *, where: str) -> SetViews | None:
    """The views that a manifest names; None if each image has one embedding, as in all manifests of earlier versions.

    Args:
      raw: the file, which is known to be the manifest of a record set.
      where: names the file in the message.

    Raises:
      InputError: the field `views` is wrong.
    """
    found: Any = json.loads(raw).get("views")
    if found is None:
        return None
    try:
        names = [field.name for field in dataclasses.fields(SetViews)]
        views = SetViews(**{name: found[name] for name in names})
    except KeyError as error:
        raise InputError(f"{where}: the field `views` lacks {error}. Run the pipeline again.") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: the field `views` is wrong: {error}. Run the pipeline again.") from error
    return views if views.count > 1 else None


def describe_views(views: SetViews | None) -> str:
    """The views of a set in words, also if each image has one."""
    return "1 view" if views is None else views.describe()


def require_same_views(sets: Sequence[RecordSet]) -> None:
    """Refuses training sets whose images have different views.

    A set without views would be drawn undistorted each time, so that its images would teach something else.

    Raises:
      InputError: two sets differ in the number of views or in how they were made.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.views != first.views:
            raise InputError(
                f"--train_data_paths: the record sets {first.prefix} and {other.prefix} have different views: "
                f"{describe_views(first.views)} against {describe_views(other.views)}. Embed both with the same "
                "options, or train on the undistorted view of both with --no-draw_views."
            )
