"""Selects the engine and the precision that run the network: the user names them, or they are measured here."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import os
import platform
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from configs.activity import doing
from configs.choices import EngineName, PrecisionName
from configs.errors import InputError
from configs.install_hint import install_hint
from configs.rules import OneOf
from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines.base import Engine, EngineInfo
from preprocess.engines.converted_networks import (
    Network,
    find_int8_network,
    load_int8_network,
    load_network,
    load_operations,
)
from preprocess.engines.fidelity import compare
from preprocess.engines.int8 import digest_of_pixels
from preprocess.engines.jax_engine import JaxEngine
from preprocess.engines.jax_import import find_gpu, has_jax, sees_gpu_driver
from preprocess.engines.jax_network import UnknownOperationError, check_operations
from preprocess.engines.libraries import libraries, versions_of
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.openvino_engine import OpenVinoEngine, cpu_has_bfloat16, read_network
from preprocess.engines.openvino_import import has_openvino
from preprocess.engines.streams import with_fastest_streams
from preprocess.engines.tensorflow_engine import TensorFlowEngine
from preprocess.images.probe_images import PROBE_VERSION, probe_images
from preprocess.machine.cores import available_cores
from preprocess.machine.processor import processor_has_bfloat16, processor_name
from preprocess.storage.base import Storage

# The smallest centred cosine to float32 on the probe images with which `auto` takes a lower precision.
FIDELITY_FLOOR = 0.99
# A lower precision that is hardly faster (emulated arithmetic, a disturbed measurement) is not worth its error.
_WORTHWHILE_SPEEDUP = 1.15
# The speedups at which no further measurement would change the choice: by a fifth more than is worthwhile, or none.
_CLEARLY_FASTER, _NOT_FASTER = 1.2 * _WORTHWHILE_SPEEDUP, 1.0
# Calibration images on which int8 is compared with float32.
_INT8_COMPARED = 16

_MEASURED = "measured.json"

# The name of an engine, and the packages that decide how fast and how exact it is.
_Kind = Literal["tensorflow", "openvino", "jax"]
_PACKAGES: dict[_Kind, tuple[str, ...]] = {
    "tensorflow": ("tensorflow",),
    "openvino": ("openvino",),
    "jax": ("jax", "jaxlib"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The engine that a user asks for.

    Attributes:
      engine: "auto" takes JAX where it sees a GPU, and on CPUs OpenVINO if it is installed, else TensorFlow.
      precision: "auto" takes bfloat16, on a GPU float16 or else bfloat16, if that is faster than float32 and agrees
        with it on probe images.
      begun_with: the engine of an earlier run of the job, which is used again; None if there was none.
      expected_images: how many images are to be embedded, or None if that is not known. For many, it is measured how
        the engine divides the cores best. It decides no number, so an engine for another number of images will do.

    Raises:
      InputError: an unknown name, or int8 with an engine that has none.
    """

    engine: EngineName = "auto"
    precision: PrecisionName = "auto"
    begun_with: EngineInfo | None = None
    expected_images: int | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        for field, rule in (("engine", OneOf.of(EngineName)), ("precision", OneOf.of(PrecisionName))):
            value = getattr(self, field)
            if not rule.holds(value):
                raise InputError(f"{field}: must be {rule.words}. Received: {value!r}.{rule.hint(value)}")
        if self.precision == "int8" and self.engine not in ("auto", "openvino"):
            raise InputError(f"precision: int8 needs --engine openvino. Received: int8 with {self.engine}")


def check_engine(spec: EngineSpec) -> None:
    """Checks in milliseconds, without loading anything, that a spec is possible here.

    Raises:
      InputError: OpenVINO or JAX is requested, or OpenVINO is needed for int8, and is not installed.
    """
    if spec.engine == "jax" and not has_jax():
        raise InputError(f"engine: jax needs JAX. {install_hint('gpu')}")
    if (spec.engine == "openvino" or spec.precision == "int8") and not has_openvino():
        field, value = ("engine", "openvino") if spec.engine == "openvino" else ("precision", "int8")
        raise InputError(f"{field}: {value} needs OpenVINO. {install_hint('openvino')}")


_load_lock = threading.Lock()
_loaded: dict[tuple[BackboneSpec, EngineSpec], Engine] = {}


def load_engine(
    backbone: BackboneSpec,
    engine: EngineSpec,
    calibration_pixels: Callable[[], np.ndarray] | None = None,
    storage: Storage | None = None,
) -> Engine:
    """The engine of a spec. It is loaded once for all threads of a process.

    Args:
      backbone: the network.
      engine: the engine and precision to use.
      calibration_pixels: gives uint8 [n, size, size, 3], images like those that will be embedded. It is called only for
        int8, which has to be calibrated.
      storage: opens files in buckets with the credentials of the job; None for the credentials of this machine.

    Raises:
      InputError: the weights are not available or do not fit the network; OpenVINO is needed and not installed; the
        processor lacks bfloat16; there are too few images to calibrate int8 with.
    """
    with _load_lock:
        if engine.begun_with is not None:
            for (of_backbone, _), loaded in _loaded.items():
                if of_backbone == backbone and loaded.info.same_numbers_as(engine.begun_with):
                    return loaded
        if (backbone, engine) not in _loaded:
            _loaded[backbone, engine] = _load(backbone, engine, calibration_pixels, storage)
        return _loaded[backbone, engine]


def forget_engine(engine: Engine) -> None:
    """Lets an engine go that `load_engine` gave, so that its memory is free when its last user has gone."""
    with _load_lock:
        for key in [key for key, loaded in _loaded.items() if loaded is engine]:
            del _loaded[key]


def _load(
    backbone: BackboneSpec,
    spec: EngineSpec,
    calibration_pixels: Callable[[], np.ndarray] | None,
    storage: Storage | None,
) -> Engine:
    check_engine(spec)
    kind = _engine_kind(spec)
    for engine_name, library, extra, is_installed in (
        ("openvino", "OpenVINO", "openvino", has_openvino),
        ("jax", "JAX", "gpu", has_jax),
    ):
        if kind == engine_name and not is_installed():
            raise InputError(
                f"engine: the job was begun with {library}, which is not installed here, and one set is not made with "
                f"two engines. Or give the same command with --overwrite, which embeds all anew. {install_hint(extra)}"
            )
    cache = ModelCache()
    network = load_network(backbone, cache, storage)
    engine = _load_with(network, spec, calibration_pixels, cache)
    if isinstance(engine, OpenVinoEngine):
        engine = with_fastest_streams(
            engine,
            _measured_key(network, engine="openvino", precision=engine.info.precision),
            cache,
            image_size=network.image.size,
            expected_images=spec.expected_images,
        )
    made_by = libraries(engine=engine.info.engine, network_sha256=network.graph_sha256)
    engine.info = dataclasses.replace(engine.info, libraries=made_by)
    return engine


def _load_with(
    network: Network, spec: EngineSpec, calibration_pixels: Callable[[], np.ndarray] | None, cache: ModelCache
) -> Engine:
    if spec.precision == "int8":
        return _load_int8(network, spec.begun_with, calibration_pixels, cache)
    kind, note = _runnable_kind(network, spec, cache)
    engine = _load_kind(network, spec, kind, cache)
    return _explained(engine, engine.info.why + note, fidelity=engine.info.fidelity) if note else engine


def _load_kind(network: Network, spec: EngineSpec, kind: _Kind, cache: ModelCache) -> Engine:
    make = _maker(network, kind, cache)
    if spec.begun_with is not None:
        return _load_begun_with(spec.begun_with, kind, make)
    if spec.precision == "float32":
        return make("float32")
    lower = _lower_precisions(kind)
    if spec.precision == "bfloat16":
        if "bfloat16" not in lower:
            raise InputError(
                f"precision: {kind} has no bfloat16 arithmetic on this machine ({_processor(kind)}). Pass --precision "
                "auto or float32."
            )
        lower = ("bfloat16",)
    if not lower:
        return _explained(make("float32"), f"float32: no lower precision in hardware here ({_processor(kind)})")
    asked = "" if spec.precision == "auto" else "asked for; "
    rejected = []
    for precision in lower:
        key = _measured_key(network, engine=kind, precision=precision, images=f"probes {PROBE_VERSION}")
        images = functools.partial(probe_images, size=network.image.size)
        measured = _measure(key, cache, make, precision, images)
        if asked or measured.is_worthwhile:
            return _explained(make(precision), f"{precision}: {asked}{measured}", fidelity=measured.worst)
        rejected.append(f"{precision} is {measured}")
    return _explained(make("float32"), f"float32: {'; '.join(rejected)}")


def _runnable_kind(network: Network, spec: EngineSpec, cache: ModelCache) -> tuple[_Kind, str]:
    """The engine for a spec, and a remark if this machine has a GPU that it does not use."""
    kind = _engine_kind(spec)
    if kind != "jax":
        unused = spec.engine == "auto" and spec.begun_with is None and sees_gpu_driver()
        return kind, "; the GPU of this machine is not used: JAX for it is not installed (the extra gpu)" * unused
    try:
        check_operations(load_operations(network, cache))
    except UnknownOperationError as error:
        if spec.engine == "jax" or spec.begun_with is not None:
            raise InputError(f"engine: jax cannot run this network ({error}). Pass --engine tensorflow.") from error
        return _engine_for_cpu(), f"; the GPU is not used: the engine for it cannot run this network ({error})"
    return kind, ""


def _load_begun_with(begun: EngineInfo, kind: _Kind, make: Callable[[str], Engine]) -> Engine:
    """Loads the engine that an earlier run chose, without measuring. The caller compares it with the record."""
    if begun.precision not in ("float32", *_lower_precisions(kind)):
        raise InputError(
            f"precision: the job was begun in {begun.precision}, which {kind} has no arithmetic for on this machine "
            f"({_processor(kind)}), and one set is not made of two precisions. Go on where the job was begun, or "
            "give the same command with --overwrite, and for workers of several kinds with --precision float32, which "
            "all have; it embeds all anew."
        )
    return _explained(make(begun.precision), f"{begun.precision}: as this job was begun", fidelity=begun.fidelity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Measured:
    """The measured speed and fidelity of a lower precision on this machine.

    Attributes:
      speedup: the speed, as a multiple of the speed of float32.
      worst: the smallest centred cosine to float32 on the images.
      median: the median of the centred cosines.
    """

    speedup: float
    worst: float
    median: float

    @property
    def is_worthwhile(self) -> bool:
        return self.speedup >= _WORTHWHILE_SPEEDUP and self.worst >= FIDELITY_FLOOR

    def __str__(self) -> str:
        return f"{self.speedup:.1f} times as fast as float32 here, probe images agree to {self.worst:.4f}"


def _is_clear(speedup: float) -> bool:
    return speedup >= _CLEARLY_FASTER or speedup <= _NOT_FASTER


def _measured_key(network: Network, *, engine: _Kind, **what: Any) -> dict[str, Any]:
    return {
        "kind": "measured",
        "network": network.key,
        "engine": engine,
        **what,
        "processor": _processor(engine),
        "threads": available_cores(),
        "versions": versions_of(*_PACKAGES[engine]),
    }


def _measure(
    key: dict[str, Any],
    cache: ModelCache,
    make: Callable[[str], Engine],
    precision: str,
    images: Callable[[], np.ndarray],
) -> _Measured:
    """Compares a precision with float32 on some images, or finds the result of an earlier start in the cache."""

    def write(folder: str) -> None:
        with doing(f"comparing {precision} with float32; the next run will know the result"):
            # The speed of int8, which is taken only if asked for, decides nothing.
            is_clear = None if precision == "int8" else _is_clear
            with concurrent.futures.ThreadPoolExecutor(1) as helper:
                drawn = helper.submit(images)  # while the network is compiled
                engines = make(precision), make("float32")
                found = compare(*engines, drawn.result(), is_clear=is_clear)
        cosines = found.cosines
        measured = _Measured(speedup=found.speedup, worst=float(cosines.min()), median=float(np.median(cosines)))
        with open(os.path.join(folder, _MEASURED), "w", encoding="utf-8") as stream:
            json.dump(dataclasses.asdict(measured), stream)

    with open(os.path.join(cache.find_or_make(key, write), _MEASURED), encoding="utf-8") as stream:
        return _Measured(**json.load(stream))


def _load_int8(
    network: Network,
    begun: EngineInfo | None,
    calibration_pixels: Callable[[], np.ndarray] | None,
    cache: ModelCache,
) -> Engine:
    if begun is not None and begun.calibration is not None:
        # The calibration is not repeated: images that were missing when the job began may exist now and change it.
        kept = find_int8_network(network, begun.calibration, cache)
        if kept is not None:
            engine: Engine = OpenVinoEngine(kept, network.identity, precision="int8")
            engine = _explained(engine, "int8: as this job was begun", fidelity=begun.fidelity)
            engine.info = dataclasses.replace(engine.info, calibration=begun.calibration)
            return engine
    if calibration_pixels is None:
        raise InputError("precision: int8 needs images to calibrate with; pass --precision bfloat16 without them.")
    pixels = calibration_pixels()
    quantized = load_int8_network(network, pixels, cache)
    calibration = digest_of_pixels(pixels)

    @functools.cache
    def make(precision: str) -> Engine:
        source = quantized if precision == "int8" else read_network(network.graph_path)
        return OpenVinoEngine(source, network.identity, precision=precision)

    # The ranges are calibrated on photos, so a comparison on generated images would say little.
    images = pixels[:_INT8_COMPARED]
    key = _measured_key(network, engine="openvino", precision="int8", images=calibration)
    measured = _measure(key, cache, make, "int8", lambda: images)
    why = (
        f"int8: asked for; {measured.speedup:.1f} times as fast as float32 here, "
        f"{len(images)} of the images that it was calibrated on agree to {measured.median:.4f} in the median, "
        f"{measured.worst:.4f} at worst"
    )
    engine = _explained(make("int8"), why, fidelity=measured.worst)
    engine.info = dataclasses.replace(engine.info, calibration=calibration)
    return engine


def _engine_kind(spec: EngineSpec) -> _Kind:
    if spec.engine != "auto":
        return spec.engine
    if spec.begun_with is not None:
        # A set that one engine began is one that another may not finish, although it is installed by now.
        return next((kind for kind in _PACKAGES if kind == spec.begun_with.engine), "openvino")
    return _engine_for_cpu() if spec.precision == "int8" or find_gpu() is None else "jax"


def _engine_for_cpu() -> _Kind:
    return "openvino" if has_openvino() else "tensorflow"


def _maker(network: Network, kind: _Kind, cache: ModelCache) -> Callable[[str], Engine]:
    """Makes the engines of a network by precision, each once: the one that was compared is the one that is used."""
    source = functools.cache(lambda: read_network(network.graph_path))

    @functools.cache
    def make(precision: str) -> Engine:
        if kind == "openvino":
            return OpenVinoEngine(source(), network.identity, precision=precision)
        if kind == "jax":
            return JaxEngine(
                load_operations(network, cache),
                network.identity,
                precision=precision,
                cache_folder=cache.folder_of_library("xla"),
            )
        return TensorFlowEngine(network.graph, network.identity, precision=precision)

    return make


def _lower_precisions(kind: _Kind) -> tuple[str, ...]:
    """The precisions below float32 that the processor may have in hardware, the more exact first."""
    if kind == "jax":
        # Which of them a GPU has is measured. On CPUs, XLA computes in float32 and rounds.
        return () if find_gpu() is None else ("float16", "bfloat16")
    if kind == "openvino":
        return ("bfloat16",) if cpu_has_bfloat16() else ()
    return ("bfloat16",) if processor_has_bfloat16() else ()


def _explained(engine: Engine, why: str, *, fidelity: float | None = None) -> Engine:
    engine.info = dataclasses.replace(engine.info, why=why, fidelity=fidelity)
    return engine


def _processor(kind: _Kind) -> str:
    """The name of the processor of an engine, for people and as part of the key of cached measurements."""
    gpu = find_gpu() if kind == "jax" else None
    if gpu is not None:
        return str(gpu.device_kind)
    return processor_name() or platform.machine()
