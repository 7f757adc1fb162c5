"""The engine that is always installed: TensorFlow on CPUs."""

from __future__ import annotations

import concurrent.futures

import numpy as np

from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.engines.base import EngineInfo
from preprocess.machine.cores import available_cores
from preprocess.records.backbone_identity import BackboneIdentity

# Batches of 4 to 32 images have the same throughput, within a few percent. A small batch starts sooner and needs less
# memory.
_BATCH = 16


class TensorFlowEngine:
    """Runs a constant graph with TensorFlow. A process needs only one engine.

    The graph runs in a session and not in a `tf.function`. A session has its own optimizer options, so mixed precision
    here does not change other uses of TensorFlow in the process.

    Args:
      graph: the graph that `inference_graph` makes.
      identity: the identity of the network.
      precision: "float32" or "bfloat16" (oneDNN).
    """

    # One batch runs on all cores, and the next batch waits.
    max_pending = 2
    batch_size = _BATCH

    def __init__(self, graph: bytes, identity: BackboneIdentity, *, precision: str = "float32"):
        tf = import_tensorflow()
        # GPUs are for the engine of JAX.
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        # By default, TensorFlow starts a thread for each core of the machine, even if a container may use only two.
        config.intra_op_parallelism_threads = available_cores()
        rewrites = config.graph_options.rewrite_options
        if precision == "bfloat16":
            rewrites.auto_mixed_precision_onednn_bfloat16 = rewrites.ON
        definition = tf.compat.v1.GraphDef.FromString(graph)
        with tf.Graph().as_default() as loaded:
            tf.import_graph_def(definition, name="")
        self._session = tf.compat.v1.Session(graph=loaded, config=config)
        self._call = self._session.make_callable(f"{EMBEDDINGS}:0", [f"{PIXELS}:0"])
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "tensorflow_engine")
        self._is_warm = False
        self.identity = identity
        self.info = EngineInfo(
            engine="tensorflow",
            precision=precision,
            device="cpu",
            fidelity=None,
            why=f"{precision} with TensorFlow: asked for",
        )

    def start(self, pixels: np.ndarray) -> concurrent.futures.Future[np.ndarray]:
        """See `Engine.start`. It never blocks."""
        return self._executor.submit(self._embed, pixels)

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        if not self._is_warm:
            with without_tensorflow_noise():
                embeddings = self._call(pixels)
            self._is_warm = True
            return embeddings
        return self._call(pixels)
