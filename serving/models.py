"""The models that are served: their versions, how a new one takes over, and the answers of each."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from configs.errors import InputError, cause_in_one_line
from preprocess.engines.select import forget_engine
from preprocess.images.decode import ImageError
from preprocess.records.backbone_identity import BackboneIdentity
from serving.batching import Batcher, NetworkOutput
from serving.decoding import ImageDecoder
from serving.loaded_model import LoadedModel, load_model
from serving.metrics import Metrics
from serving.options import ServeOptions
from serving.refusals import RefusedError
from serving.versions import VersionFinder
from trainer.export.classifier import Prediction, read_model_info
from trainer.export.model_info import ModelInfo

_LOGGER = logging.getLogger("serving")

# The states of TensorFlow Serving's API that we have.
State = Literal["LOADING", "AVAILABLE", "END"]


class ServedVersion:
    """A version that answers. It lives as long as the last request that uses it.

    Attributes:
      name: of the model.
      number: of the version.
      loaded: the engine and the head.
      digest: of its description on disk.
    """

    def __init__(
        self, name: str, number: int, loaded: LoadedModel, digest: str, options: ServeOptions, metrics: Metrics
    ):
        self.name = name
        self.number = number
        self.loaded = loaded
        self.digest = digest
        self._metrics = metrics
        self._decoder = ImageDecoder(
            size=loaded.info.image.size,
            max_pixels=options.max_image_pixels,
            deadline_sec=options.image_deadline_sec,
            max_wait_sec=options.max_wait_sec,
            metrics=metrics,
        )
        self._batcher = Batcher(
            loaded.engine,
            loaded.scores_of,
            max_batch=options.max_batch,
            max_delay_sec=options.max_delay_ms / 1000,
            metrics=metrics,
        )

    @property
    def info(self) -> ModelInfo:
        """The description of the model."""
        return self.loaded.info

    async def predict(self, image: bytes) -> Prediction:
        """The answer for an image file of any content; one with an `error` if it is no usable image.

        Raises:
          MachineFault: this machine cannot decode now.
          WaitedTooLongError: its turn did not come in time.
        """
        return self.prediction_of(await self.run(image))

    def prediction_of(self, output: NetworkOutput | ImageError) -> Prediction:
        """The answer that follows from what `run` gave."""
        if isinstance(output, ImageError):
            return Prediction.of_error(str(output), self.info)
        prediction = Prediction.of_scores(output.scores, self.info)
        self._metrics.image("answered" if prediction.confident else "not_confident")
        return prediction

    async def run(self, image: bytes) -> NetworkOutput | ImageError:
        """What the network and the head give for an image file, or why it is no usable image."""
        try:
            pixels = await self._decoder.decode(image)
        except ImageError as error:
            self._metrics.image(error.reason)
            return error
        return await self._batcher.run(pixels)

    async def classify(self, embeddings: np.ndarray) -> list[Prediction]:
        """The answers for embeddings, float32 [n, embedding_size].

        Raises:
          RefusedError: a sum of the head is beyond float32, so there are no scores.
        """
        scores = await self._batcher.scores(embeddings)
        if len(overflown := np.flatnonzero(~np.isfinite(scores).all(axis=1))):
            raise RefusedError(400, f"The numbers of the embedding of instance {overflown[0]} are too large.")
        return [Prediction.of_scores(row, self.info) for row in scores]


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of a version, as TensorFlow Serving reports it; `problem` is empty if there is none."""

    number: int
    state: State
    problem: str = ""


class Model:
    """A model by its name, with the versions of it that are served. All calls are made in the thread of one loop.

    Args:
      name: in addresses.
      model_dir: the folder of the model or of its versions.
      options: of the server.
      metrics: of the server.
      searched: the network of the record sets that are searched; None if the server does not search.
    """

    def __init__(
        self,
        name: str,
        model_dir: str,
        options: ServeOptions,
        metrics: Metrics,
        *,
        searched: BackboneIdentity | None = None,
    ):
        self.name = name
        self._searched = searched
        self._options = options
        self._metrics = metrics
        self._finder = VersionFinder(model_dir)
        self._served: dict[int, ServedVersion] = {}
        self._loading: int | None = None
        # The versions that could not be loaded, by number: what was there, and the problem.
        self._failed: dict[int, tuple[str, str]] = {}

    def get(self, number: int | None = None) -> ServedVersion | None:
        """A version; the newest if none is named. None if it is not served."""
        if number is None:
            return self._served[max(self._served)] if self._served else None
        return self._served.get(number)

    def states(self) -> list[VersionState]:
        """The states of all versions, the newest first."""
        found = {number: VersionState(number, "AVAILABLE") for number in self._served}
        for number, (_, problem) in self._failed.items():
            found.setdefault(number, VersionState(number, "END", problem))
        if self._loading is not None:
            found.setdefault(self._loading, VersionState(self._loading, "LOADING"))
        return [found[number] for number in sorted(found, reverse=True)]

    def newest_info(self) -> ModelInfo:
        """The description of the newest version on the disk, without loading it.

        Raises:
          InputError: there is none.
        """
        found = self._finder.find()
        return read_model_info(found[max(found)][0])

    def load_first(self) -> None:
        """Loads the versions that are there when the server starts.

        Raises:
          InputError: one of them cannot be loaded.
        """
        found = self._finder.find()
        for number in self._wanted(found):
            folder, digest = found[number]
            self._add(number, load_model(folder, self._options), digest)

    def _wanted(self, found: dict[int, tuple[str, str]]) -> list[int]:
        return sorted(found, reverse=True)[: self._options.versions]

    async def refresh(self) -> None:
        """Looks for new versions and takes them up: requests get the old version until the new one is ready.

        Versions whose folders are gone, and those beyond the newest few, answer what was asked of them and then go.
        """
        try:
            found = await asyncio.to_thread(self._finder.find)
        except InputError as error:
            _LOGGER.warning("model %s: %s", self.name, cause_in_one_line(error))
            return  # What is served goes on.
        wanted = self._wanted(found)
        for number in wanted:
            folder, digest = found[number]
            served = self._served.get(number)
            if served is None or served.digest != digest:
                await self._take_up(number, folder, digest)
        if any(number in self._served for number in wanted):
            keep = self._wanted({number: found[number] for number in found if number in self._served})
            for number in [number for number in self._served if number not in keep]:
                self._remove(number)
        self._failed = {number: failure for number, failure in self._failed.items() if number in found}

    async def _take_up(self, number: int, folder: str, digest: str) -> None:
        self._loading = number
        try:
            loaded = await asyncio.to_thread(load_model, folder, self._options)
        except InputError as error:
            # It is tried again each time, since its files may still be on their way. It is said once.
            problem = cause_in_one_line(error)
            if self._failed.get(number) != (digest, problem):
                _LOGGER.warning("model %s: version %d is not served. %s", self.name, number, problem)
            self._failed[number] = (digest, problem)
            return
        finally:
            self._loading = None
        self._failed.pop(number, None)
        self._add(number, loaded, digest)

    def _add(self, number: int, loaded: LoadedModel, digest: str) -> None:
        before = self._served.get(number)
        self._served[number] = ServedVersion(self.name, number, loaded, digest, self._options, self._metrics)
        self._metrics.version(self.name, number, served=True)
        info = loaded.engine.info
        _LOGGER.info(
            "model %s: version %d is served (%s, %s)",
            self.name,
            number,
            loaded.info.backbone.architecture,
            info.arithmetic,
        )
        if loaded.info.warning:
            _LOGGER.warning("model %s: %s", self.name, loaded.info.warning)
        if self._searched is not None and not loaded.info.backbone.agrees_with(self._searched):
            _LOGGER.warning(
                "model %s: no similar photos are found with version %d, whose network is not the one of --search",
                self.name,
                number,
            )
        if before is not None:
            self._let_go(before)

    def _remove(self, number: int) -> None:
        self._metrics.version(self.name, number, served=False)
        _LOGGER.info("model %s: version %d is no longer served", self.name, number)
        self._let_go(self._served.pop(number))

    def _let_go(self, version: ServedVersion) -> None:
        """Its requests go on, since they hold it. Its engine may be shared."""
        if all(other.loaded.engine is not version.loaded.engine for other in self._served.values()):
            forget_engine(version.loaded.engine)


class Models:
    """All models of a server, by name."""

    def __init__(self, options: ServeOptions, metrics: Metrics, *, searched: BackboneIdentity | None = None):
        self._options = options
        self._by_name = {
            name: Model(name, model_dir, options, metrics, searched=searched)
            for name, model_dir in zip(options.names, options.model_dir, strict=True)
        }

    @property
    def all(self) -> Sequence[Model]:
        """The models; the first is the one of `/predict` and of the page."""
        return list(self._by_name.values())

    def get(self, name: str) -> Model | None:
        """The model of a name."""
        return self._by_name.get(name)

    @property
    def are_ready(self) -> bool:
        """Whether each model has a version that answers."""
        return all(model.get() is not None for model in self.all)

    def load_first(self) -> None:
        """Loads them all. Raises InputError."""
        for model in self.all:
            model.load_first()

    async def watch(self) -> None:
        """Looks for new versions for ever."""
        while self._options.poll_sec:
            await asyncio.sleep(self._options.poll_sec)
            for model in self.all:
                try:
                    await model.refresh()
                except Exception:  # A bug, or memory: the versions that are served go on.
                    _LOGGER.exception("model %s: looking for new versions failed", model.name)
