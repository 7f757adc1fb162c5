"""The packaging entry point that Beam workers use (`--setup_file ./setup.py`); pyproject.toml has the metadata.

It also says how the compiled loops over pixels are built. They are optional: without a C compiler the project is built
without them, and Pillow and NumPy compute the same bits in more time.
"""

import hashlib
import pathlib

from setuptools import Extension, setup

_SOURCE = "preprocess/images/_pixels.c"
# So that a compiled file of another source is found out (`preprocess.images.compiled`).
_DIGEST = hashlib.sha256((pathlib.Path(__file__).parent / _SOURCE).read_bytes())

setup(
    ext_modules=[
        Extension(
            "preprocess.images._pixels",
            [_SOURCE],
            depends=["setup.py"],
            define_macros=[("SOURCE_DIGEST", f'"{_DIGEST.hexdigest()}"')],
            # One file for every Python from 3.11 on.
            py_limited_api=True,
            # The weights of the resize are computed as Pillow does it: each product and each sum is rounded.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
