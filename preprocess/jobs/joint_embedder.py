"""Embeds blocks with several backbones, from one read and one decode of each image.

Each backbone has a `BlockEmbedder` with an engine, batches and files of its own, exactly as in a job with this
backbone alone, so its set has the same bytes. What they share is the loader: an image is loaded if at least one of them
needs it, and each that needs it gets its square of the pixels. They do their steps in turn, on one thread: the one with
the most rows left goes first. So none is ahead of another by more than about a batch, which limits the images in
memory, and the engines have batches at the same time.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from preprocess.images.loader import KnownImage, LoadedImage, Outcome
from preprocess.images.pixel_layout import PixelLayout
from preprocess.jobs.block_embedder import BlockEmbedder, Loader
from preprocess.jobs.block_results import BlockResult
from preprocess.jobs.resume import ResumedBlock
from preprocess.lists.blocks import RowBlock
from preprocess.storage.uris import resolve_uri


class JointEmbedder:
    """Embeds blocks with one or several backbones, in the order in which the blocks are submitted.

    The methods are those of `BlockEmbedder`, with a result for each backbone. All calls come from one thread.

    Args:
      loader: reads and decodes images in threads. It looks up embeddings for all backbones, in their order.
      layout: of the pixels that the loader gives.
      sizes: for each backbone the side of its square.
      make_embedder: makes the embedder of a backbone, from its number and its loader.
    """

    def __init__(
        self,
        *,
        loader: Loader,
        layout: PixelLayout,
        sizes: Sequence[int],
        make_embedder: Callable[[int, Loader], BlockEmbedder],
    ):
        # A backbone alone has the loader to itself.
        self._shared = _SharedLoader(loader, layout, sizes) if len(sizes) > 1 else None
        loaders = [loader] if self._shared is None else self._shared.parts
        self._embedders = [make_embedder(number, part) for number, part in enumerate(loaders)]
        # Of each submitted block what earlier runs finished of it, for each backbone.
        self._blocks: collections.deque[Sequence[BlockResult | None]] = collections.deque()

    @property
    def submitted(self) -> int:
        """Blocks submitted and not yet completed."""
        return len(self._blocks)

    def submit(self, block: RowBlock, earlier: Sequence[ResumedBlock]) -> None:
        """Takes a block and starts to read its images, within the limit for reading ahead.

        Args:
          block: the block.
          earlier: what earlier runs left of it, for each backbone. At least one has work left.
        """
        for embedder, left in zip(self._embedders, earlier, strict=True):
            if left.result is None:
                embedder.submit(block, left)
        if self._shared is not None:
            self._shared.load(resolve_uri(row.uri, block.list_path) for row in block.rows if row.outcome is None)
        self._blocks.append([left.result for left in earlier])

    def complete_next(self) -> tuple[BlockResult, ...]:
        """Finishes the block that was submitted first, and gives its result for each backbone.

        Raises:
          Exception: an engine or storage raised it; all submitted blocks are abandoned.
        """
        finished = list(zip(self._embedders, self._blocks[0], strict=True))
        working = [embedder for embedder, result in finished if result is None]
        try:
            while not all(embedder.next_is_done for embedder in working):
                last = max((one for one in self._embedders if one.has_work), key=lambda one: one.rows_left)
                last.step()
            results = tuple(embedder.finish_next() if result is None else result for embedder, result in finished)
        except BaseException as error:
            for embedder in self._embedders:
                embedder.abandon(error)
            raise
        self._blocks.popleft()
        return results


@dataclasses.dataclass(eq=False, slots=True)
class _Slot:
    """The place of an image that is loaded once; None until it is loaded."""

    outcome: Outcome | None = None


class _SharedLoader:
    """Divides one loader among several takers. Each gets the images that it asks for, in its own order of asking."""

    def __init__(self, loader: Loader, layout: PixelLayout, sizes: Sequence[int]):
        self._loader = loader
        self._loading: collections.deque[_Slot] = collections.deque()
        self.parts = [_Part(self.load_next, layout, number, size) for number, size in enumerate(sizes)]

    def load(self, locations: Iterable[str]) -> None:
        """Starts to load what the parts have asked for.

        Args:
          locations: of all images of a block. What each part has asked for are some of them, in the same order.
        """
        wanted = []
        for location in locations:
            takers = [part for part in self.parts if part.asked and part.asked[0] == location]
            if takers:
                slot = _Slot()
                for part in takers:
                    part.asked.popleft()
                    part.slots.append(slot)
                self._loading.append(slot)
                wanted.append(location)
        self._loader.add(wanted)

    def load_next(self) -> None:
        """Waits for the next image, and puts it into its slot."""
        outcome = self._loader.next()
        self._loading.popleft().outcome = outcome


class _Part:
    """The `Loader` of one of several backbones.

    Attributes:
      asked: the locations that were asked for since the last call of `_SharedLoader.load`.
      slots: of the images that this backbone has asked for and not taken yet.
    """

    def __init__(self, load_next: Callable[[], None], layout: PixelLayout, number: int, size: int):
        self.asked: collections.deque[str] = collections.deque()
        self.slots: collections.deque[_Slot] = collections.deque()
        self._load_next = load_next
        self._layout = layout
        self._number = number
        self._size = size

    def add(self, locations: Iterable[str]) -> None:
        """Asks for images."""
        self.asked.extend(locations)

    def next(self) -> Outcome:
        """The next image that was asked for, with the pixels or the embedding of this backbone."""
        slot = self.slots.popleft()
        while slot.outcome is None:
            self._load_next()
        image = slot.outcome
        if isinstance(image, KnownImage):
            return dataclasses.replace(image, found=(image.found[self._number],))
        if isinstance(image, LoadedImage):
            found = (image.found[self._number],) if image.found else ()
            return dataclasses.replace(image, pixels=self._layout.square(image.pixels, self._size), found=found)
        return image
