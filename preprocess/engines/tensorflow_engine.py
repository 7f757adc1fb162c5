"""The engine that is always installed: TensorFlow on CPUs."""

from __future__ import annotations

import concurrent.futures

import numpy as np

from preprocess.backbones.inference_graph import EMBEDDINGS, PIXELS
from preprocess.backbones.tensorflow_import import import_tensorflow, without_tensorflow_noise
from preprocess.engines.base import EngineInfo
from preprocess.machine.cores import available_cores
from preprocess.records.backbone_identity import BackboneIdentity

# From 4 images a batch on, throughput on a CPU is the same to a few percent (measured to 32); a small batch starts
# sooner and holds less memory.
_BATCH = 16


class TensorFlowEngine:
    """Runs a constant graph with TensorFlow. One serves a whole process.

    The graph runs in a session, not in a `tf.function`: a session has its own optimizer options, so that mixed
    precision here changes nothing for whatever else the process does with TensorFlow.

    Args:
      graph: what `inference_graph` makes.
      identity: the network in it.
      precision: "float32" or "bfloat16" (oneDNN).
    """

    # One runs on all cores, the next waits.
    max_pending = 2
    batch_size = _BATCH

    def __init__(self, graph: bytes, identity: BackboneIdentity, *, precision: str = "float32"):
        tf = import_tensorflow()
        # GPUs are for the engine of JAX.
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        # By itself it takes a thread for each core of the machine, also in a container that gets time for two.
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
        """As `Engine.start`; never blocks."""
        return self._executor.submit(self._embed, pixels)

    def _embed(self, pixels: np.ndarray) -> np.ndarray:
        if not self._is_warm:
            with without_tensorflow_noise():
                embeddings = self._call(pixels)
            self._is_warm = True
            return embeddings
        return self._call(pixels)
