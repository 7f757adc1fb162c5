"""The page of an audit: one suspect after the other with its nearest neighbours, and keys to decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.activity import doing
from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.photo_files import PhotoFiles
from insight.label_errors.judge import Judgement
from insight.label_errors.suspects import Suspect
from insight.neighbours.exact import unit_vectors
from insight.pages.html_page import page_id, render_page

# Sides of pictures in pixels: 200 suspects with their neighbours take about 4 MB.
_SIDE, _NEIGHBOUR_SIDE = 224, 96
_NEIGHBOURS = 6


def audit_page(
    photos: EmbeddedPhotos, judgement: Judgement, found: Sequence[Suspect], *, photo_dirs: Sequence[str] = ()
) -> str:
    """The page as one file of HTML that opens offline.

    Args:
      photos: all photos that were judged.
      judgement: of their labels.
      found: the suspects to show, in order.
      photo_dirs: as in the options: the folders that photos may be read from.
    """
    pictures = _Pictures(photos, photo_dirs)
    shown = []
    with doing("making small pictures", total=len(found), unit="photo") as progress:
        for suspect in found:
            shown.append(_of_suspect(photos, suspect, pictures))
            progress.advance()
    data = {
        "id": page_id([(entry["uri"], entry["labels"]) for entry in shown]),
        "labels": sorted(photos.labels, key=str.casefold),
        "suspects": shown,
        "pictures": pictures.all,
    }
    return render_page(
        "audit.html",
        title="Which labels are wrong?",
        scripts=["decisions.js", "audit.js"],
        data=data,
        num_photos=len(photos),
        num_shown=len(shown),
        num_probable=int((judgement.wrong > 0.5).sum()),
        sets=[record_set.prefix for record_set in photos.sets],
        without_pictures=not pictures.all,
    )


class _Pictures:
    """The small pictures of photos, each made once."""

    def __init__(self, photos: EmbeddedPhotos, photo_dirs: Sequence[str]):
        self._files = PhotoFiles(photos, photo_dirs)
        self._places: dict[tuple[int, int], int | None] = {}
        self.all: list[str] = []

    def place(self, row: int, side: int) -> int | None:
        """The place in `all` of the picture of a photo; None if the photo cannot be read here."""
        key = (row, side)
        if key not in self._places:
            made = self._files.thumbnail(row, side=side)
            self._places[key] = None if made is None else len(self.all)
            if made is not None:
                self.all.append(made.picture)
        return self._places[key]


def _of_suspect(photos: EmbeddedPhotos, suspect: Suspect, pictures: _Pictures) -> dict[str, Any]:
    neighbours = list(suspect.neighbours[:_NEIGHBOURS])
    # As `hugs search` gives it. The audit compares standardized embeddings, by which they are in order.
    vectors = unit_vectors(photos.embeddings[[suspect.row, *neighbours]])
    return {
        "uri": str(photos.uris[suspect.row]),
        "sha256": photos.digest_of(suspect.row) or "",
        "labels": list(suspect.labels),
        "proposal": suspect.proposal,
        "wrong": None if suspect.wrong is None else round(suspect.wrong, 4),
        "why": suspect.why,
        "picture": pictures.place(suspect.row, _SIDE),
        "neighbours": [
            {
                "uri": str(photos.uris[other]),
                "labels": photos.labels_of(other),
                "similarity": round(float(vectors[0] @ vectors[1 + place]), 3),
                "picture": pictures.place(other, _NEIGHBOUR_SIDE),
            }
            for place, other in enumerate(neighbours)
        ],
    }
