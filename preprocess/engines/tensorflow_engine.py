"""The engine that is always installed: TensorFlow, on a CPU, or on a GPU if it finds one."""

from __future__ import annotations

import concurrent.futures
import os
from types import ModuleType

import numpy as np

from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.engines.base import EngineInfo
from preprocess.machine.cores import available_cores
from preprocess.records.backbone_identity import BackboneIdentity

# On a CPU, batches of 4 to 32 images have the same throughput, within a few percent. A small batch starts sooner and
# needs less memory.
_CPU_BATCH = 16
# A batch of this size fills any GPU, and its activations fit into 4 GB. If they do not fit, the batch is halved.
_GPU_BATCH = 128


def has_gpu() -> bool:
    """True if TensorFlow sees a GPU. On a machine without such a device, TensorFlow is not imported."""
    # The devices of NVIDIA's driver, of its driver in the Windows Subsystem for Linux, and of AMD's driver.
    if not any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")):
        return False
    return bool(_import_tensorflow().config.list_logical_devices("GPU"))


def gpu_has_float16() -> bool:
    """True if the first GPU computes in float16 faster than in float32 (compute capability 7.0 and later)."""
    config = _import_tensorflow().config
    devices = config.list_physical_devices("GPU")
    return bool(devices) and config.experimental.get_device_details(devices[0]).get("compute_capability", (0,)) >= (7,)


def _import_tensorflow() -> ModuleType:
    # Without this setting, TensorFlow takes the whole memory of a GPU, but several worker processes may share it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    return import_tensorflow()


class TensorFlowEngine:
    """Runs a constant graph with TensorFlow. A process needs only one engine.

    The graph runs in a session and not in a `tf.function`. A session has its own optimizer options, so mixed precision
    here does not change other uses of TensorFlow in the process. If a batch does not fit into the memory of a GPU, it
    is halved until it fits. (The GPU path follows TensorFlow's documentation; it has never run on a GPU.)

    Args:
      graph: the graph that `inference_graph` makes.
      identity: the identity of the network.
      precision: "float32"; "bfloat16" (CPUs, oneDNN); "float16" (GPUs).
    """

    # One batch runs on all cores, and the next batch waits.
    max_pending = 2

    def __init__(self, graph: bytes, identity: BackboneIdentity, *, precision: str = "float32"):
        tf = _import_tensorflow()
        on_gpu = has_gpu()
        if on_gpu:
            # TF32 has the mantissa of float16, so it is not float32. This setting is for the whole process.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        config = tf.compat.v1.ConfigProto()
        # By default, TensorFlow starts a thread for each core of the machine, even if a container may use only two.
        config.intra_op_parallelism_threads = available_cores()
        rewrites = config.graph_options.rewrite_options
        if precision == "bfloat16":
            rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
        elif precision == "float16":
            rewrites.auto_mixed_precision = rewrites.ON
        definition = tf.compat.v1.GraphDef.FromString(graph)
        with tf.Graph().as_default() as loaded:
            tf.import_graph_def(definition, name="")
        self._session = tf.compat.v1.Session(graph=loaded, config=config)
        self._call = self._session.make_callable(f"{EMBEDDINGS}:0", [f"{PIXELS}:0"])
        self._out_of_memory = tf.errors.ResourceExhaustedError
        self._largest = _GPU_BATCH if on_gpu else _CPU_BATCH
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "tensorflow_engine")
        self._is_warm = False
        self.identity = identity
        self.batch_size = self._largest
        self.info = EngineInfo(
            engine="tensorflow",
            precision=precision,
            device="gpu" if on_gpu else "cpu",
            fidelity=None,
            why=f"{precision} with TensorFlow: asked for",
        )

    def start(self, pixels: np.ndarray) -> concurrent.futures.Future[np.ndarray]:
        """See `Engine.start`. It never blocks."""
        return self._executor.submit(self._embed, pixels)

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        if not self._is_warm:
            with without_tensorflow_noise():
                embeddings = self._embed_in_steps(pixels)
            self._is_warm = True
            return embeddings
        return self._embed_in_steps(pixels)

    def _embed_in_steps(self, pixels: np.ndarray) -> np.ndarray:
        while True:
            step = self._largest
            try:
                parts = [self._call(pixels[start : start + step]) for start in range(0, len(pixels), step)]
            except self._out_of_memory:
                if step == 1:
                    raise
                self._largest = step // 2
            else:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)
