"""The engine that is always installed: TensorFlow on CPUs."""

from __future__ import annotations

import concurrent.futures
from typing import Any

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
        self._config = config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
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
        self._call_with_brightness: Any = None
        # One thread, so nothing here needs a lock.
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "tensorflow_engine")
        # Whether each of the two calls was made.
        self._is_warm = {False: False, True: False}
        self.identity = identity
        self.info = EngineInfo(
            engine="tensorflow",
            precision=precision,
            device="cpu",
            fidelity=None,
            why=f"{precision} with TensorFlow: asked for",
        )

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """See `Engine.start`. It never blocks."""
        return self._executor.submit(self._embed, pixels, brightness)

    def _embed(self, pixels: np.ndarray, brightness: np.ndarray | None) -> np.ndarray:
        has_brightness = brightness is not None
        if self._is_warm[has_brightness]:
            return self._run(pixels, brightness)
        with without_tensorflow_noise():
            embeddings = self._run(pixels, brightness)
        self._is_warm[has_brightness] = True
        return embeddings

    def _run(self, pixels: np.ndarray, brightness: np.ndarray | None) -> np.ndarray:
        if brightness is None:
            return self._call(pixels)
        if self._call_with_brightness is None:
            self._call_with_brightness = self._make_call_with_brightness()
        return self._call_with_brightness(pixels, brightness)

    def _make_call_with_brightness(self) -> Any:
        """The same graph with a factor for each image between the cast of the pixels to floats and all else."""
        tf = import_tensorflow()
        definition = self._session.graph.as_graph_def()
        (cast,) = (node.name for node in definition.node if node.op == "Cast" and list(node.input) == [PIXELS])
        with tf.Graph().as_default() as graph:
            pixels = tf.compat.v1.placeholder(tf.uint8, [None, None, None, 3])
            brightness = tf.compat.v1.placeholder(tf.float32, [None])
            brightened = tf.cast(pixels, tf.float32) * tf.reshape(brightness, [-1, 1, 1, 1])
            tf.import_graph_def(definition, input_map={f"{cast}:0": brightened}, name="network")
        session = tf.compat.v1.Session(graph=graph, config=self._config)
        return session.make_callable(f"network/{EMBEDDINGS}:0", [pixels, brightness])
