"""The faster engine on CPUs: OpenVINO (the optional extra `openvino`)."""

from __future__ import annotations

import concurrent.futures
import functools
import queue
import threading
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


def _with_brightness(network: Any) -> Any:
    """A copy of a network with a second input, float32 [n, 1, 1, 1]: a factor on the pixels of each image.

    It stands between the conversion of the pixels to floats and all else.
    """
    ov = import_openvino()
    from openvino import opset13

    copy = network.clone()
    (converted,) = (
        operation.output(0)
        for operation in copy.get_ordered_ops()
        if operation.get_type_name() == "Convert" and operation.input(0).get_element_type() == ov.Type.u8
    )
    readers = converted.get_target_inputs()
    brightness = opset13.parameter([-1, 1, 1, 1], ov.Type.f32)
    brightened = opset13.multiply(converted, brightness).output(0)
    for reader in readers:
        reader.replace_source_output(brightened)
    copy.add_parameters([brightness])
    copy.validate_nodes_and_infer_types()
    return copy


class OpenVinoEngine:
    """Runs a network with OpenVINO. A process needs only one engine, which is compiled once.

    The cores are divided into streams, and each stream works on its own batch. The same batch always gives the same
    bytes. The compiled network takes batches of any size, so the last batch of a block may be short. This is as fast as
    a fixed size.

    Args:
      network: an `ov.Model`, uint8 [n, size, size, 3] to float32 [n, embedding_size]. It is not changed.
      identity: the identity of the network.
      precision: "float32", "bfloat16", or "int8" for a network that `calibrate` made.
      streams: into how many streams the cores are divided; None for OpenVINO's own choice.

    Attributes:
      streams: into how many streams the cores are divided.

    Raises:
      InputError: OpenVINO is not installed.
    """

    batch_size = _BATCH

    def __init__(
        self, network: Any, identity: BackboneIdentity, *, precision: str = "float32", streams: int | None = None
    ):
        ov = import_openvino()
        # In an int8 network, this is the precision of the operations that are not int8.
        lower = precision != "float32" and cpu_has_bfloat16()
        self._compile = functools.partial(
            ov.Core().compile_model,
            device_name=_DEVICE,
            config={
                # OpenVINO chooses the streams and their threads so that many images at once are fast.
                "PERFORMANCE_HINT": "THROUGHPUT",
                **({} if streams is None else {"NUM_STREAMS": streams}),
                "INFERENCE_PRECISION_HINT": ov.Type.bf16 if lower else ov.Type.f32,
                "INFERENCE_NUM_THREADS": available_cores(),
                # Pinned threads of two worker processes, or of decoders, would share the same cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._network = network
        compiled = self._compile(network)
        # There is one request more than streams, so a batch always waits for the next free stream.
        self.max_pending = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        self.streams = int(compiled.get_property("NUM_STREAMS"))
        self._idle = self._requests_of(compiled)
        self._idle_with_brightness: queue.SimpleQueue[Any] | None = None
        self._lock = threading.Lock()
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

    def with_streams(self, streams: int) -> OpenVinoEngine:
        """The same engine with another number of streams. The cores may allow fewer."""
        engine = OpenVinoEngine(self._network, self.identity, precision=self.info.precision, streams=streams)
        engine.info = self.info
        return engine

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """See `Engine.start`. Batches beyond `max_pending` wait; only the first one with a brightness may block."""
        if brightness is None:
            return self._executor.submit(self._embed, self._idle, {0: pixels})
        factors = brightness.reshape(-1, 1, 1, 1)
        return self._executor.submit(self._embed, self._requests_with_brightness(), {0: pixels, 1: factors})

    def _requests_of(self, compiled: Any) -> queue.SimpleQueue[Any]:
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.max_pending):
            requests.put(compiled.create_infer_request())
        return requests

    def _requests_with_brightness(self) -> queue.SimpleQueue[Any]:
        with self._lock:
            if self._idle_with_brightness is None:
                self._idle_with_brightness = self._requests_of(self._compile(_with_brightness(self._network)))
            return self._idle_with_brightness

    def _embed(self, idle: queue.SimpleQueue[Any], inputs: dict[int, np.ndarray]) -> np.ndarray:
        request = idle.get()
        try:
            # infer() is not used, because it would add this thread to the streams' threads.
            request.start_async(inputs)
            request.wait()
            # This copies the result, because the next batch of this request overwrites the tensor.
            return request.get_output_tensor(0).data.copy()
        finally:
            idle.put(request)
