"""The files of photos in record sets: each is looked for as the lists of its own set name it."""

from __future__ import annotations

from collections.abc import Sequence

from insight.data.embedded_photos import EmbeddedPhotos
from trainer.data.photos import PhotoFinder, Thumbnail, finder_of_sets


class PhotoFiles:
    """Finds the files of photos. Sets in different folders may name different photos by the same relative URI."""

    def __init__(self, photos: EmbeddedPhotos, photo_dirs: Sequence[str] = ()):
        """Reads nothing yet.

        Args:
          photos: of any sets.
          photo_dirs: as in the options: the folders that photos may be read from.
        """
        self._photos = photos
        self._finders = [finder_of_sets([record_set], photo_dirs) for record_set in photos.sets]

    def finder_of(self, row: int) -> PhotoFinder:
        """What finds the file of one photo."""
        return self._finders[int(self._photos.set_numbers[row])]

    def location(self, row: int) -> str:
        """Where the file of one photo lies, see `PhotoFinder.location`; empty if that is not known."""
        return self.finder_of(row).location(self._photos.uris[row])

    def thumbnail(self, row: int, *, side: int) -> Thumbnail | None:
        """A small picture of one photo, `side` pixels wide; None if its file cannot be read here, or is another now."""
        return self.finder_of(row).thumbnail(str(self._photos.uris[row]), self._photos.digest_of(row), side=side)
