"""The libraries that make pixels and embeddings, by version: what tells one set's numbers from another's.

Those that matter, and only those. Pillow resizes and converts, and its decoders of lossy formats decide pixels, in
whatever version it was built with; the engine computes, and for int8 NNCF chooses the ranges; the digest of the network
as the engine gets it stands for Keras, NumPy and TensorFlow, which made it. Decoders of lossless formats (zlib) cannot
give other pixels, and what moves bytes (Beam, clients of storage) cannot either.

Not in it is the processor: the same versions choose other kernels for other instruction sets, which sum in another
order. Embeddings of two kinds of processor agree to a few units of the precision's last places, not in every bit.
"""

from __future__ import annotations

import importlib.metadata
import sys

from PIL import features

# By the names of `PIL.features`. "jpg" is the interface of libjpeg, which tells little; which library has it tells all.
_LOSSY_DECODERS = ("libjpeg_turbo", "mozjpeg", "jpg", "webp", "avif", "jpg_2000", "libtiff")
# Of a network's digest, as people see it.
_DIGEST_DIGITS = 12

INSTALLABLE = ("pillow", "openvino", "nncf", "tensorflow")
"""Those that `pip install NAME==VERSION` gives back; all others come inside of them."""


def libraries(*, engine: str, precision: str, network_sha256: str) -> tuple[str, ...]:
    """Names and versions, for example ("network 2ce4654018a6", "pillow 12.3.0", "openvino 2026.4.0", "webp 1.6.0").

    Args:
      engine: "openvino" or "tensorflow"; loaded in this process.
      precision: of its arithmetic.
      network_sha256: of the graph that the engine runs.
    """
    packages = ("pillow", engine, *(("nncf",) if precision == "int8" else ()))
    decoders = ((name, features.version(name)) for name in _LOSSY_DECODERS)
    return (
        f"network {network_sha256[:_DIGEST_DIGITS]}",
        *(f"{package} {_version(package)}" for package in packages),
        *(f"{name} {version}" for name, version in decoders if version),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # TensorFlow is distributed under several names.
        return str(getattr(sys.modules.get(package), "__version__", "of unknown version"))
