"""How a job reads and decodes its images, with the limits for one image. It is picklable, so workers get it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from configs.recipe import PreprocessOptions
from preprocess.beam.beam_storage import BeamStorage
from preprocess.engines.base import Engine
from preprocess.images.decode import IMAGE_SIZE, MAX_IMAGE_PIXELS
from preprocess.images.host_queues import DEFAULT_CONNECTIONS_PER_HOST
from preprocess.images.isolated_decoder import IsolatedDecoder
from preprocess.images.loader import FindEmbeddings, ImageLoader, RecallEmbeddings
from preprocess.images.parallel_loader import ParallelLoader, is_worthwhile
from preprocess.images.pixel_layout import PixelLayout
from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES, read_image_bytes
from preprocess.images.web_images import WebImages
from preprocess.machine.machine_faults import TRY_AGAIN
from preprocess.records.views import Views
from preprocess.storage.retry import RetryPolicy
from preprocess.storage.uris import is_web

# Of the engine's batches: while one is put together and another written, the decoders go on.
_BATCHES_AHEAD = 4
# Of the images of a batch, if an image has so many views that `_BATCHES_AHEAD` batches are views of fewer images.
_FEWEST_BATCHES_OF_IMAGES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReader:
    """Reads image files from local disks, from remote storage and from web hosts.

    Attributes:
      max_bytes: larger files fail.
      retry: the storage retries, also for web hosts.
      deadline_sec: for one request to a web host.
      connections_per_host: the largest number of connections to one web host.
      web_contact: an address of the user that web hosts see; None for none.
    """

    max_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    deadline_sec: float = PreprocessOptions.image_deadline_sec
    connections_per_host: int = DEFAULT_CONNECTIONS_PER_HOST
    web_contact: str | None = None

    def __call__(self, location: str) -> bytes:
        """The bytes of an image file; raises RowFailure."""
        if is_web(location):
            web = _web_images(self.retry, self.deadline_sec, self.connections_per_host, self.web_contact)
            return read_image_bytes(location, read_remote=web.read, max_bytes=self.max_bytes)
        storage = _storage(self.retry)
        return read_image_bytes(
            location, read_remote=storage.read, read_part=storage.read_part, max_bytes=self.max_bytes
        )


@functools.cache
def _storage(retry: RetryPolicy) -> BeamStorage:
    """The storage for all images of a process."""
    return BeamStorage(retry)


@functools.cache
def _web_images(retry: RetryPolicy, deadline_sec: float, connections_per_host: int, contact: str | None) -> WebImages:
    """The client for all web images of a process."""
    return WebImages(retry=retry, deadline_sec=deadline_sec, connections_per_host=connections_per_host, contact=contact)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource:
    """How images are read and decoded.

    Attributes:
      max_bytes: larger files fail.
      max_pixels: images with a larger width x height, as declared in the header, fail.
      deadline_sec: an image that takes longer to decode fails; a read that takes longer is tried again, and then it
        stops the job. For reading, the time of the storage retries is added.
      retry: the storage retries.
      read: reads the bytes at a location; None for `ImageReader`.
      decode: decodes bytes to pixels; None for `IsolatedDecoder`.
      size: the side of the square that the backbone takes.
      further_sizes: the sides of squares that other backbones take of the same images (`images.pixel_layout`).
      views: the views of each image; None for one.
      read_ahead: the number of images that are loaded ahead. Of images with several views, fewer are.
      try_again: how long an image is tried again if the machine failed; the time of the attempts is not counted.
      connections_per_host: how many images of one web host are read at once.
      web_contact: an address of the user that web hosts see; None for none.
    """

    max_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    max_pixels: int = MAX_IMAGE_PIXELS
    deadline_sec: float = PreprocessOptions.image_deadline_sec
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    read: Callable[[str], bytes] | None = None
    decode: Callable[..., np.ndarray] | None = None
    size: int = IMAGE_SIZE
    further_sizes: tuple[int, ...] = ()
    views: Views | None = None
    read_ahead: int = 128
    try_again: RetryPolicy = TRY_AGAIN
    connections_per_host: int = DEFAULT_CONNECTIONS_PER_HOST
    web_contact: str | None = None

    @classmethod
    def of_options(cls, options: PreprocessOptions, *, size: int = IMAGE_SIZE) -> ImageSource:
        """The image source that the options of a recipe and of the flags describe, for a backbone's size of images."""
        return cls(
            size=size,
            views=Views.of_options(options),
            max_bytes=options.max_image_bytes,
            max_pixels=options.max_image_pixels,
            deadline_sec=options.image_deadline_sec,
            retry=RetryPolicy(limit_sec=options.storage_retry_sec),
            connections_per_host=options.connections_per_host,
            web_contact=options.web_contact,
        )

    @property
    def without_views(self) -> ImageSource:
        """The same with one view of each image."""
        return dataclasses.replace(self, views=None)

    @property
    def num_views(self) -> int:
        """The number of views of each image."""
        return 1 if self.views is None else self.views.count

    @property
    def layout(self) -> PixelLayout:
        """Where the squares and their views lie in the pixels of an image."""
        return PixelLayout(sizes=(self.size, *self.further_sizes), views=self.num_views)

    def _max_ahead(self, batch_size: int) -> int:
        """The number of images that are loaded ahead: as many pictures as without views, if these are two batches."""
        pictures = max(self.read_ahead, _BATCHES_AHEAD * batch_size)
        if self.views is None:
            return pictures
        return max(-(-pictures // self.views.count), _FEWEST_BATCHES_OF_IMAGES * batch_size)

    def make_loader(
        self,
        find_embeddings: FindEmbeddings | None = None,
        *,
        recall: RecallEmbeddings | None = None,
        engines: Sequence[Engine] = (),
        wants_hashes: bool = False,
    ) -> ImageLoader | ParallelLoader:
        """Makes the loader of images.

        Args:
          find_embeddings: looks up the embeddings of an image by the SHA-256 of its file.
          recall: the same, of the embeddings that are in memory. Helper processes do not ask it.
          engines: what the images are loaded for, which decides how far ahead and in how many processes.
          wants_hashes: an image is decoded, too, if an embedding is found without the hash of the image.
        """
        decode = self.decode or IsolatedDecoder(
            max_pixels=self.max_pixels,
            deadline_sec=self.deadline_sec,
            size=self.size,
            views=self.views,
            further_sizes=self.further_sizes,
        )
        max_ahead = self._max_ahead(max((engine.batch_size for engine in engines), default=0))
        deadline_sec = self.deadline_sec + self.retry.limit_sec
        here = ImageLoader(
            read=self.read
            or ImageReader(
                max_bytes=self.max_bytes,
                retry=self.retry,
                deadline_sec=self.deadline_sec,
                connections_per_host=self.connections_per_host,
                web_contact=self.web_contact,
            ),
            decode=decode,
            decodes_views=self.views is not None,
            max_ahead=max_ahead,
            deadline_sec=deadline_sec,
            find_embeddings=find_embeddings,
            recall=recall,
            wants_hashes=wants_hashes,
            try_again=self.try_again,
            connections_per_host=self.connections_per_host,
        )
        # Embeddings are looked up, and a stand-in reads, in this process only.
        if (
            all(engine.info.device == "cpu" for engine in engines)
            or find_embeddings
            or self.read
            or not is_worthwhile()
        ):
            return here
        return ParallelLoader(
            here=here,
            decode=decode,
            views=self.num_views,
            max_bytes=self.max_bytes,
            deadline_sec=deadline_sec,
            max_ahead=max_ahead,
            image_bytes=self.layout.num_bytes,
        )
