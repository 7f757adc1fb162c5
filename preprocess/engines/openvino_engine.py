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

# Batches of 8 to 32 images have the same throughput, within a few percent. Small batches need less memory and end
# sooner, so all streams finish a block at about the same time.
_BATCH = 8

_DEVICE = "CPU"


def read_network(path: str) -> Any:
    """An `ov.Model` from a constant graph (.pb), or from OpenVINO's own format (.xml with a .bin file beside it).

    Raises:
      InputError: OpenVINO is not installed.
    """
    return import_openvino().Core().read_model(path)


def cpu_has_bfloat16() -> bool:
    """True if OpenVINO computes in bfloat16 on this CPU. On other CPUs it only accepts the setting.

    Raises:
      InputError: OpenVINO is not installed.
    """
    return "BF16" in import_openvino().Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVinoEngine:
    """Runs a network with OpenVINO. A process needs only one engine, which is compiled once.

    The cores are divided into streams, and each stream works on its own batch. The same batch always gives the same
    bytes. The compiled network takes batches of any size, so the last batch of a block may be short. This is as fast as
    a fixed size.

    Args:
      network: an `ov.Model`, uint8 [n, size, size, 3] to float32 [n, embedding_size]. It is not changed.
      identity: the identity of the network.
      precision: "float32", "bfloat16", or "int8" for a network that `calibrate` made.

    Raises:
      InputError: OpenVINO is not installed.
    """

    batch_size = _BATCH

    def __init__(self, network: Any, identity: BackboneIdentity, *, precision: str = "float32"):
        ov = import_openvino()
        core = ov.Core()
        # In an int8 network, this is the precision of the operations that are not int8.
        lower = precision != "float32" and cpu_has_bfloat16()
        compiled = core.compile_model(
            network,
            _DEVICE,
            {
                # OpenVINO chooses the streams and their threads so that many images at once are fast.
                "PERFORMANCE_HINT": "THROUGHPUT",
                "INFERENCE_PRECISION_HINT": ov.Type.bf16 if lower else ov.Type.f32,
                "INFERENCE_NUM_THREADS": available_cores(),
                # Pinned threads of two worker processes, or of decoders, would share the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # There is one request more than streams, so a batch always waits for the next free stream.
        self.max_pending = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.max_pending):
            self._idle.put(compiled.create_infer_request())
        # The first access to the data of a tensor initializes OpenVINO's interface to NumPy, under a lock. When two
        # threads did this at once, they waited forever: one for the lock, and the other, which held it, for the GIL.
        _ = ov.Tensor(np.zeros(1, np.uint8)).data
        # Threads wait for the batches. OpenVINO's own queue with a callback is not used: a failed batch never calls
        # back, and a program that exits while the last callback returns is aborted.
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
        """See `Engine.start`. It never blocks: batches beyond `max_pending` wait."""
        return self._executor.submit(self._embed, pixels)

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        request = self._idle.get()
        try:
            # infer() is not used, because it would add this thread to the streams' threads.
            request.start_async({0: pixels})
            request.wait()
            # This copies the result, because the next batch of this request overwrites the tensor.
            return request.get_output_tensor(0).data.copy()
        finally:
            self._idle.put(request)
