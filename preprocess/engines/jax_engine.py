"""The engine for GPUs: XLA through JAX (the optional extra `gpu`)."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import numpy as np

from preprocess.engines.base import EngineInfo
from preprocess.engines.jax_import import find_gpu, import_jax
from preprocess.engines.jax_network import translate
from preprocess.engines.operations import Operations
from preprocess.records.backbone_identity import BackboneIdentity

_GPU_BATCH = 256
# A CPU is slower with XLA than with the other engines, and is here for tests.
_CPU_BATCH = 4
# The same pixels give the same bytes. Costs nothing measurable.
_GPU_OPTIONS = {"xla_gpu_exclude_nondeterministic_ops": True}
# What XLA's errors begin with when memory does not suffice.
_NO_MEMORY = "RESOURCE_EXHAUSTED"


class JaxEngine:
    """Runs a network as one program that XLA has compiled. One serves a whole process.

    The program takes a full batch; shorter ones are filled up with black images, so that nothing is compiled twice and
    an embedding does not depend on the size of its batch. While the device works on a batch, the pixels of the next are
    sent. What does not fit the memory of the device is halved, from then on for the life of the engine.

    Args:
      network: the operations.
      identity: the network.
      precision: "float32", "bfloat16" or "float16".
      cache_folder: where XLA keeps compiled programs from run to run; None for nowhere.

    Raises:
      InputError: JAX is not installed.
      UnknownOperationError: the network has an operation that is not known.
    """

    # One on the device, one on its way to it, one on its way back.
    max_pending = 3

    def __init__(
        self,
        network: Operations,
        identity: BackboneIdentity,
        *,
        precision: str = "float32",
        cache_folder: str | None = None,
    ):
        jax = import_jax()
        gpu = find_gpu()
        # A program for a CPU may hold instructions that another CPU lacks.
        if gpu is not None and cache_folder is not None and not jax.config.jax_compilation_cache_dir:
            jax.config.update("jax_compilation_cache_dir", cache_folder)
        self._jax = jax
        self._device = jax.devices("cpu")[0] if gpu is None else gpu
        self._options = None if gpu is None else _GPU_OPTIONS
        self._network = network
        self._function, weights = translate(network, precision)
        self._weights = jax.device_put(weights, self._device)
        self._cache_folder = cache_folder
        self._exact: JaxEngine | None = None
        # By the size of a batch, and whether it has a brightness.
        self._programs: dict[tuple[int, bool], Any] = {}
        self._lock = threading.Lock()
        self._executor = concurrent.futures.ThreadPoolExecutor(self.max_pending, "jax_engine")
        self.identity = identity
        self.batch_size = _CPU_BATCH if gpu is None else _GPU_BATCH
        self.info = EngineInfo(
            engine="jax",
            precision=precision,
            device="cpu" if gpu is None else "gpu",
            fidelity=None,
            why=f"{precision} with JAX: asked for",
        )

    def start(self, pixels: np.ndarray, brightness: np.ndarray | None = None) -> concurrent.futures.Future[np.ndarray]:
        """As `Engine.start`; never blocks, batches beyond `max_pending` wait."""
        return self._executor.submit(self._embed, pixels, brightness)

    def _embed(self, pixels: np.ndarray, brightness: np.ndarray | None) -> np.ndarray:
        if pixels.shape[1:] != self._network.pixel_shape:
            raise ValueError(f"pixels must have the shape {self._network.pixel_shape}. Received: {pixels.shape[1:]}")
        while True:
            step = self.batch_size
            try:
                parts = [
                    self._run(pixels[part], None if brightness is None else brightness[part], step)
                    for part in (slice(start, start + step) for start in range(0, len(pixels), step))
                ]
            except self._jax.errors.JaxRuntimeError as error:
                if _NO_MEMORY not in str(error) or step == 1:
                    raise
                self._halve(step)
            else:
                return self._rescued(pixels, brightness, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _rescued(self, pixels: np.ndarray, brightness: np.ndarray | None, embeddings: np.ndarray) -> np.ndarray:
        """The embeddings; those of images whose features are too large for float16 (65504), computed in float32."""
        if self.info.precision != "float16":
            return embeddings
        finite = np.isfinite(embeddings).all(axis=1)
        if finite.all():
            return embeddings
        with self._lock:
            if self._exact is None:
                self._exact = JaxEngine(self._network, self.identity, cache_folder=self._cache_folder)
        embeddings = embeddings.copy()
        factors = None if brightness is None else brightness[~finite]
        embeddings[~finite] = self._exact.start(pixels[~finite], factors).result()
        return embeddings

    def _halve(self, step: int) -> None:
        with self._lock:  # Several batches fail at once, and count as one.
            if self.batch_size == step:
                self.batch_size = step // 2
                self._programs.clear()

    def _run(self, pixels: np.ndarray, brightness: np.ndarray | None, step: int) -> np.ndarray:
        rows = len(pixels)
        if rows < step:
            pixels = np.concatenate([pixels, np.zeros((step - rows, *pixels.shape[1:]), np.uint8)])
            if brightness is not None:
                brightness = np.concatenate([brightness, np.ones(step - rows, np.float32)])
        batch = [self.send(one) for one in (pixels, brightness) if one is not None]
        # Neither of them waits for the device; asarray does, without the interpreter's lock.
        return np.asarray(self.compute(*batch))[:rows]

    def send(self, batch: np.ndarray) -> Any:
        """The pixels or the brightness of a full batch on their way to the device, a `jax.Array`; returns at once."""
        return self._jax.device_put(batch, self._device)

    def compute(self, pixels: Any, brightness: Any = None) -> Any:
        """The embeddings of a full batch, a `jax.Array` on the device; returns at once when the program is compiled."""
        program = self._program(len(pixels), with_brightness=brightness is not None)
        return program(self._weights, pixels) if brightness is None else program(self._weights, pixels, brightness)

    def _program(self, step: int, *, with_brightness: bool) -> Any:
        with self._lock:
            key = step, with_brightness
            if key not in self._programs:
                self._programs[key] = self._compile(step, with_brightness=with_brightness)
            return self._programs[key]

    def _compile(self, step: int, *, with_brightness: bool) -> Any:
        jax = self._jax
        here = jax.sharding.SingleDeviceSharding(self._device)
        inputs = [jax.ShapeDtypeStruct((step, *self._network.pixel_shape), np.uint8, sharding=here)]
        if with_brightness:
            inputs.append(jax.ShapeDtypeStruct((step,), np.float32, sharding=here))
        return jax.jit(self._function).lower(self._weights, *inputs).compile(self._options)
