"""What the server counts, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server. Labels have few values: none of them comes from a request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "hugs_requests", "Requests by route and status.", ("route", "status"), registry=self._registry
        )
        self._request_seconds = Histogram(
            "hugs_request_seconds", "Seconds a request took.", ("route",), registry=self._registry, buckets=_SECONDS
        )
        self._images = Counter(
            "hugs_images",
            "Images by outcome: answered, not_confident, or the reason why not.",
            ("outcome",),
            registry=self._registry,
        )
        self._searches = Counter(
            "hugs_searches", "Photos that similar ones were looked for, with --search.", registry=self._registry
        )
        self._stages = Histogram(
            "hugs_stage_seconds",
            "Seconds of an image in decode or wait, of a batch in network; with --search of a request in search, of a "
            "photo in thumbnail.",
            ("stage",),
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._batches = Histogram(
            "hugs_batch_images", "Images in a batch of the network.", registry=self._registry, buckets=_SIZES
        )
        self._in_flight = Gauge("hugs_images_in_flight", "Images that are worked on or wait.", registry=self._registry)
        self._versions = Gauge(
            "hugs_model_version", "1 for each version that is served.", ("model", "version"), registry=self._registry
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def image(self, outcome: str) -> None:
        """Counts an image."""
        self._images.labels(outcome).inc()

    def stage(self, stage: str, seconds: float) -> None:
        """Notes the time of a stage."""
        self._stages.labels(stage).observe(seconds)

    def search(self, photos: int, seconds: float) -> None:
        """Notes a search for photos like each of some."""
        self._searches.inc(photos)
        self.stage("search", seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Notes a batch."""
        self._batches.observe(size)
        self.stage("network", seconds)

    def watch_in_flight(self, count: Callable[[], int]) -> None:
        """Says where the number of images in flight is found."""
        self._in_flight.set_function(count)

    def version(self, model: str, version: int, *, served: bool) -> None:
        """Notes that a version is served, or no longer served."""
        if served:
            self._versions.labels(model, str(version)).set(1)
        else:
            self._versions.remove(model, str(version))

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
