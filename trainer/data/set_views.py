"""The views of record sets in words, and whether training sets agree in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.errors import InputError
from preprocess.records.views import Views

if TYPE_CHECKING:
    from trainer.data.record_sets import RecordSet


def views_of_metrics(used: Mapping[str, Any]) -> Views:
    """The views of the training images, from the field `views` of metrics.json."""
    return Views(**{name: value for name, value in used.items() if name != "drawn"})


def describe_views(views: Views | None) -> str:
    """For example "4 views (mirrored, crop 10 %)"; "1 view" for None."""
    return "1 view" if views is None else views.describe()


def require_same_views(sets: Sequence[RecordSet]) -> None:
    """Refuses training sets whose images have different views.

    A set without views would be drawn undistorted each time, so that its images would teach something else.

    Raises:
      InputError: two sets differ in the number of views or in how they were made.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.manifest.views != first.manifest.views:
            raise InputError(
                f"--train_data_paths: the record sets {first.prefix} and {other.prefix} have different views: "
                f"{describe_views(first.manifest.views)} against {describe_views(other.manifest.views)}. Embed both "
                "with the same options, or train on the undistorted view of both with --no-draw_views."
            )
