"""Importing TensorFlow takes no more than it needs."""

import subprocess
import sys

from tests.support.programs import ROOT

PROGRAM = """
import gc, sys
from preprocess.backbones.tensorflow_import import import_tensorflow
import_tensorflow(start=False)
assert "jax" not in sys.modules and "sklearn" not in sys.modules and gc.isenabled()
# Whoever uses them afterwards finds them.
import sklearn.linear_model
assert sys.modules["sklearn"]
"""


def test_what_is_not_needed_is_not_imported_and_can_be_imported_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
