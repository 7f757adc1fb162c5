"""A job on Dataflow as several tests start it and look into it; fixtures are in conftest.py."""

import json

from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines import embed

ROWS = 5
OUTPUT = "gs://bucket/hugs_20260102_030405/preproc/train"
IMAGE = "europe-docker.pkg.dev/project/repo/hugs:1"
# No project to pack, and nothing to say about the packages of this machine: the quickest job.
QUICK = (f"--sdk_container_image={IMAGE}", "--experiments=disable_logging_submission_environment")


def run_embed(service, *flags, output=OUTPUT, lists="gs://bucket/train.csv", weights="random"):
    argv = ["--input_path", lists, "--input_dict", "gs://bucket/dict.txt", "--output_path", output]
    argv += ["--weights", weights, "--runner=DataflowRunner", f"--dataflow_endpoint={service.url}"]
    return embed.main([*argv, "--storage_retry_sec=0", *flags])


def write_recipe(path, **options):
    lines = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in options.items())
    path.write_text(f"name: hugs\ndataflow:\n{lines}")
    return str(path)


def pipeline_of(gcs, job):
    path = job.posted["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    return beam_runner_api_pb2.Pipeline.FromString(gcs.get("bucket", path.removeprefix("gs://bucket/")))


def steps_of(pipeline):
    return {step.unique_name: step for step in pipeline.components.transforms.values()}


def stages_of(pipeline):
    """The unpickled stages, by the names of their steps."""
    stages = {}
    for name in ("EmbedLists/ReadRows", "EmbedLists/EmbedImages", "EmbedLists/FinishRecordSet"):
        payload = beam_runner_api_pb2.ParDoPayload.FromString(steps_of(pipeline)[name].spec.payload)
        stages[name] = pickler.loads(payload.do_fn.payload)[0]
    return stages
