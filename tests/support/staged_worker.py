"""What a Dataflow worker does with a staged pipeline, on this machine: unpickles its stages and runs them.

python -I staged_worker.py SITE PIPELINE_PB...

It is run by the interpreter of an environment that has the project from the staged source distribution only; a
stand-in takes the network's place. SITE is that environment's folder of packages.
"""

import concurrent.futures
import importlib
import sys

import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from preprocess.beam.transforms import EngineLoader
from preprocess.engines.base import EngineInfo
from preprocess.records.backbone_identity import BackboneIdentity


class StandInEngine:
    """Embeds an image as a few sums over its pixels."""

    identity = BackboneIdentity(
        architecture="stand_in",
        weights="random",
        seed=0,
        weights_digest="sha256:0",
        embedding_size=2,
        image_definition="stand-in/1",
    )
    info = EngineInfo(engine="stand_in", precision="float32", device="cpu", fidelity=None, why="for tests")
    batch_size = 4
    max_pending = 2

    def start(self, pixels):
        values = pixels.astype(np.float32)
        done = concurrent.futures.Future()
        done.set_result(np.stack([values.mean(axis=(1, 2, 3)) + 1, values[:, 0].sum(axis=(1, 2))], 1))
        return done


def run(path):
    with open(path, "rb") as stream:
        pipeline = beam_runner_api_pb2.Pipeline.FromString(stream.read())
    for environment in pipeline.components.environments.values():
        # This process in place of a container: what is pickled in the pipeline is unpickled here.
        environment.urn = python_urns.EMBEDDED_PYTHON
        environment.payload = b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


def main():
    site, *paths = sys.argv[1:]
    for engine in ("openvino_engine", "tensorflow_engine"):
        importlib.import_module(f"preprocess.engines.{engine}")
    EngineLoader.__call__ = lambda self: StandInEngine()
    for path in paths:
        run(path)
    for name, module in sys.modules.items():
        if name.partition(".")[0] in ("configs", "preprocess", "pipelines"):
            assert module.__file__.startswith(site), module


if __name__ == "__main__":
    main()
