"""The names and versions of the libraries that decide pixels and embeddings.

Only libraries that can change numbers are listed. Pillow resizes and converts, and the decoders of lossy formats with
which it was built decide pixels. The engine computes (JAX with XLA, which is jaxlib, and cuDNN). The digest of the
network that the engine gets stands for Keras, NumPy and TensorFlow, which made the network. Decoders of lossless
formats (zlib) always give the same pixels, and libraries that move bytes (Beam, storage clients) do not change them.
The optional decoder of HEIC is not listed: HEVC is specified to the bit, and whoever installs it after a job wants
`--retry_failures` to go on with that job.

The processor is not listed. The same versions use other kernels for other instruction sets, which sum in another order.
Embeddings from two kinds of processors agree except for a few units in the last places of the precision.
"""

from __future__ import annotations

import importlib.metadata
import sys

from PIL import features

# Named as in `PIL.features`. The version of "jpg" is only that of libjpeg's interface, so the library is listed too.
_LOSSY_DECODERS = ("libjpeg_turbo", "mozjpeg", "jpg", "webp", "avif", "jpg_2000", "libtiff")
# The number of digits of a network's digest that are shown.
_DIGEST_DIGITS = 12

# What an engine consists of, where that is not the package of its name; those that are not installed are left out.
_PACKAGES = {"jax": ("jax", "jaxlib", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")}

INSTALLABLE = ("pillow", "openvino", "tensorflow", "jax", "jaxlib", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
"""The libraries that `pip install NAME==VERSION` installs; all others are part of these."""


def libraries(*, engine: str, network_sha256: str) -> tuple[str, ...]:
    """Names and versions, for example ("network 2ce4654018a6", "pillow 12.3.0", "openvino 2026.4.0", "webp 1.6.0").

    Args:
      engine: "openvino", "tensorflow" or "jax"; loaded in this process.
      network_sha256: the SHA-256 of the graph that the engine runs.
    """
    parts = [name for name, version in versions_of(*_PACKAGES.get(engine, ())).items() if version] or [engine]
    packages = ("pillow", *parts)
    decoders = ((name, features.version(name)) for name in _LOSSY_DECODERS)
    return (
        f"network {network_sha256[:_DIGEST_DIGITS]}",
        *(f"{package} {_version(package)}" for package in packages),
        *(f"{name} {version}" for name, version in decoders if version),
    )


def versions_of(*packages: str) -> dict[str, str | None]:
    """Versions of installed packages, without importing them; None for those that are missing."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _version(package: str) -> str:
    # TensorFlow is distributed under several names.
    return versions_of(package)[package] or str(getattr(sys.modules.get(package), "__version__", "of unknown version"))
