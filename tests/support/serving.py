"""A server on loopback, in a thread of the test's process, and models for it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np

from configs.page import PageOptions
from serving.options import ServeOptions
from tests.support import tiny_network

LABELS = ("hugs", "not-hugs", "Gänseblümchen")
_START_SEC = 60.0


def export_tiny_model(
    path: str,
    *,
    seed: int = 0,
    backbone_seed: int = 0,
    threshold: float = 0.0,
    labels: tuple[str, ...] = LABELS,
    page: PageOptions | None = None,
) -> str:
    """A model of the tiny network with random weights, which `--weights` need not name. The network is installed."""
    from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
    from preprocess.images.probe_images import probe_images
    from trainer.export.saved_model import save_model
    from trainer.training.head import build_head

    spec = BackboneSpec(architecture=tiny_network.NAME, weights="random", seed=backbone_seed)
    backbone, identity = load_keras_backbone(spec)
    embeddings = backbone(probe_images(8).astype(np.float32) / 127.5 - 1, training=False).numpy()
    head = build_head(
        embedding_size=embeddings.shape[1],
        num_classes=len(labels),
        hidden_units=8,
        seed=seed,
        mean_and_variance=(embeddings.mean(0), embeddings.var(0) + 1e-6),
    )
    save_model(path, backbone=backbone, head=head, labels=labels, identity=identity, threshold=threshold, page=page)
    return path


class RunningServer:
    """The address of a server, and the server itself."""

    def __init__(self, server, port: int):
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def running_server(page: PageOptions | None = None, **options) -> Iterator[RunningServer]:
    from serving.serve import make_server

    values = {"engine": "tensorflow", "precision": "float32", "port": 0, "poll_sec": 0, "drain_sec": 5, **options}
    server = make_server(ServeOptions(**values), page)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until = time.monotonic() + _START_SEC
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.01)
        yield RunningServer(server, listener.getsockname()[1])
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
