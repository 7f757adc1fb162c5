"""The new photos, as far as they are compared: from record sets, or from the photos themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from insight.data.embedded_photos import EmbeddedPhotos
from insight.data.photo_files import PhotoFiles
from insight.queries.named_photos import NamedPhotos, UnreadPhoto
from trainer.data.distinct_photos import first_of_each
from trainer.data.photo_statistics import PHOTO_STATISTICS, statistics_of_photos
from trainer.data.photos import PhotoFinder, Thumbnail

# Of more new photos so many are sampled: what so many do not show is no change that matters.
MAX_PHOTOS = 2000
# So many are looked at for their brightness and the like; of records, those that can be read in this time.
MAX_STATISTICS = 300
_READ_SEC = 60.0
_SAMPLE_SEED = 7


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NewPhotos:
    """New photos that are compared: a sample, in which no file is twice.

    Attributes:
      total: how many photos there are, those that were not sampled and not read among them.
      uris: of the n photos of the sample, as the list or the records have them.
      places: what `finders` take to find their files.
      finders: find the files.
      digests: the first 16 bytes of the SHA-256 of each file, in hexadecimal; None if not known.
      embeddings: float32, shape [n, embedding_size].
      read_places: int64, shape [p]: which of the n photos have statistics.
      statistics: float32, shape [p, 6], in the order of `PHOTO_STATISTICS`.
      repeated: photos that were left out, since another one has the same content.
      unread: photos that could not be read.
    """

    total: int
    uris: list[str]
    places: list[str]
    finders: list[PhotoFinder]
    digests: list[str | None]
    embeddings: np.ndarray
    read_places: np.ndarray
    statistics: np.ndarray
    repeated: int = 0
    unread: tuple[UnreadPhoto, ...] = ()

    def __len__(self) -> int:
        return len(self.uris)

    def location(self, place: int) -> str:
        """Where the file of one photo lies, see `PhotoFinder.location`; empty if that is not known."""
        return self.finders[place].location(self.places[place])

    def thumbnail(self, place: int, *, side: int) -> Thumbnail | None:
        """A small picture of one photo, `side` pixels wide; None if its file cannot be read here, or is another now."""
        return self.finders[place].thumbnail(self.places[place], self.digests[place], side=side)


def sample_of(count: int) -> np.ndarray:
    """Which of `count` photos are compared: int64, in random order, always the same one."""
    return np.random.RandomState(_SAMPLE_SEED).permutation(count)[:MAX_PHOTOS]


def photos_of_records(photos: EmbeddedPhotos, files: PhotoFiles, *, image_size: int, reads: bool) -> NewPhotos:
    """The new photos of record sets.

    Args:
      photos: the records.
      files: finds the files of the photos, for brightness and the like.
      image_size: the side of the square that the network sees.
      reads: whether photos are read at all.
    """
    sample = sample_of(len(photos))
    rows = sample[first_of_each([photos.digest_of(row) for row in sample.tolist()])]
    digests = [photos.digest_of(row) for row in rows.tolist()]
    finders = [files.finder_of(row) for row in rows.tolist()]
    uris = [str(photos.uris[row]) for row in rows.tolist()]
    read: list[int] = []
    statistics = np.zeros((0, len(PHOTO_STATISTICS)), np.float32)
    if reads:
        named = list(zip(finders, uris, digests, strict=True))[:MAX_STATISTICS]
        read, statistics = statistics_of_photos(named, size=image_size, limit_sec=_READ_SEC)
    return NewPhotos(
        total=len(photos),
        uris=uris,
        places=uris,
        finders=finders,
        digests=digests,
        embeddings=photos.embeddings[rows],
        read_places=np.array(read, np.int64),
        statistics=statistics,
        repeated=len(sample) - len(rows),
    )


def photos_of_files(found: NamedPhotos, named: Sequence[tuple[str, str]], *, total: int) -> NewPhotos:
    """The new photos that somebody named.

    Args:
      found: those of the sample that could be read.
      named: the URI, as its list has it, and the location of each photo of the sample.
      total: how many were named.
    """
    kept = first_of_each(found.digests)
    with_statistics = np.flatnonzero(kept < len(found.statistics))
    rows = found.rows[kept].tolist()
    return NewPhotos(
        total=total,
        uris=[named[row][0] for row in rows],
        places=[named[row][1] for row in rows],
        finders=[PhotoFinder()] * len(kept),
        digests=[found.digests[place] for place in kept.tolist()],
        embeddings=found.embeddings[kept],
        read_places=with_statistics,
        statistics=found.statistics[kept[with_statistics]],
        repeated=len(found.digests) - len(kept),
        unread=tuple(found.unread),
    )
