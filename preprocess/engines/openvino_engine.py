"""The faster engine on CPUs: OpenVINO (the optional extra `openvino`)."""

from __future__ import annotations

import concurrent.futures
import queue
from typing import Any

import numpy as np

from preprocess.engines.base import EngineInfo
from preprocess.engines.openvino_import import import_openvino
from preprocess.machine.cores import available_cores
from preprocess.records.backbone_identity import BackboneIdentity

# From 8 images a batch on, throughput is the same to a few percent (measured to 32); smaller batches hold less memory
# and end sooner, so that all streams finish a block together.
_BATCH = 8

_DEVICE = "CPU"


def read_network(path: str) -> Any:
    """An `ov.Model` from a constant graph (.pb) or from OpenVINO's own format (.xml, its .bin beside it).

    Raises:
      InputError: OpenVINO is not installed.
    """
    return import_openvino().Core().read_model(path)


def cpu_has_bfloat16() -> bool:
    """True if OpenVINO computes in bfloat16 on this CPU, not merely accepts it.

    Raises:
      InputError: OpenVINO is not installed.
    """
    return "BF16" in import_openvino().Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """Runs a network with OpenVINO. One, compiled once, serves a whole process.

    The cores are divided into streams, each working on a batch of its own; the same batch gives the same bytes,
    whatever the other streams work on. Batches may have any size: the number of images is not compiled in, which is as
    fast and lets the last batch of a block be short.

    Args:
      network: an `ov.Model`, uint8 [n, size, size, 3] to float32 [n, embedding_size]. Not changed.
      identity: the network.
      precision: "float32", "bfloat16", or "int8" for a network that `calibrate` made.

    Raises:
      InputError: OpenVINO is not installed.
    """

    batch_size = _BATCH

    def __init__(self, network: Any, identity: BackboneIdentity, *, precision: str = "float32"):
        ov = import_openvino()
        core = ov.Core()
        # In an int8 network, this is for what is left of it.
        lower = precision != "float32" and cpu_has_bfloat16()
        compiled = core.compile_model(
            network,
            _DEVICE,
            {
                # Streams and their threads as OpenVINO thinks best for many images at once.
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": ov.Type.bf16 if lower else ov.Type.f32,
                "INFERENCE_NUM_THREADS": available_cores(),
                # Pinned threads of two worker processes would sit on the same cores, and so would the decoders.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # One more than there are streams: a stream that ends finds the next batch waiting.
        self.max_pending = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.max_pending):
            self._idle.put(compiled.create_infer_request())
        # The first look at the data of a tensor sets up OpenVINO's view of NumPy, under a guard. Two threads that took
        # their first look at once were seen to wait for ever, one for the guard, the other, which held it, for the GIL.
        _ = ov.Tensor(np.zeros(1, np.uint8)).data
        # Threads that wait, and not OpenVINO's own queue with a callback: there a failed batch never calls back, and a
        # program that exits while the last callback returns is aborted.
        self._executor = concurrent.futures.ThreadPoolExecutor(self.max_pending, "openvino_engine")
        self.identity = identity
        self.info = EngineInfo(
            engine="openvino",
            precision=precision,
            device="cpu",
            fidelity=None,
            why=f"{precision} with OpenVINO: asked for",
        )

    def start(self, pixels: np.ndarray) -> concurrent.futures.Future[np.ndarray]:
        """As `Engine.start`; never blocks, batches beyond `max_pending` wait."""
        return self._executor.submit(self._embed, pixels)

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        request = self._idle.get()
        try:
            # Not infer(), which would add this thread to the streams' threads.
            request.start_async({0: pixels})
            request.wait()
            # A copy: the next batch of this request overwrites the tensor.
            return request.get_output_tensor(0).data.copy()
        finally:
            self._idle.put(request)
