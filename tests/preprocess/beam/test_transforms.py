import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from configs.errors import InputError
from preprocess.beam import image_source, source_digest, transforms
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import BackboneSet, EmbedLists, EmbedOptions
from preprocess.jobs import faults, progress
from preprocess.lists.blocks import Spread
from preprocess.lists.labels import LabelDict
from tests.support.stand_ins import (
    decode_stand_in,
    load_gpu_stand_in,
    load_independent_stand_in,
    load_stand_in,
    make_job,
    read_stand_in,
)

LABELS = LabelDict(("a", "b"))


def make_pipeline(
    tmp_path,
    texts,
    rows_per_shard=10,
    compression="none",
    beam_flags=(),
    load_engine=load_stand_in,
    spread=Spread(),  # noqa: B008 (frozen)
    images=ImageSource(read=read_stand_in, decode=decode_stand_in),  # noqa: B008 (frozen)
    further=(),
    **job_changes,
):
    paths = []
    for number, text in enumerate(texts):
        path = tmp_path / f"list{number}.csv"
        path.write_text(text)
        paths.append(str(path))
    job = make_job(
        tmp_path,
        **{
            "compression": compression,
            "labels": LABELS.names,
            "input_paths": tuple(paths),
            "input_sha256": tuple(hashlib.sha256(text.encode()).hexdigest() for text in texts),
            "rows_expected": sum(text.count("\n") for text in texts),
        }
        | job_changes,
    )
    options = EmbedOptions(
        unknown_labels="skip",
        load_engine=load_engine,
        rows_per_shard=rows_per_shard,
        batch_size=4,
        images=images,
        spread=spread,
    )
    pipeline = beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_flags)))
    sets = [
        BackboneSet(
            job=dataclasses.replace(job, output_prefix=f"{tmp_path}/{name}/train", backbone_name=name),
            load_engine=load,
            size=images.size,
        )
        for name, load in further
    ]
    _ = pipeline | EmbedLists(job=job, labels=LABELS, options=options, further=sets)
    return pipeline


def uris(tmp_path, compression=""):
    paths = sorted(str(path) for path in (tmp_path / "out").glob("train-*"))
    examples = (tf.train.Example.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(paths, compression))
    return [example.features.feature["image_uri"].bytes_list.value[0].decode() for example in examples]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_stand_in_the_order_of_the_lists(tmp_path, compression):
    texts = ["".join(f"{i}.jpg,a\n" for i in range(1, 26)), "30.jpg,b\nmissing.jpg,b\n31.jpg\n"]
    rows = []
    with progress.listening(rows.append):
        result = make_pipeline(tmp_path, texts, compression=compression).run()
        result.wait_until_finish()
    assert uris(tmp_path, "GZIP" if compression == "gzip" else "") == [
        *(f"{i}.jpg" for i in range(1, 26)),
        "30.jpg",
        "31.jpg",
    ]
    assert len(list((tmp_path / "out").glob("train-*-of-00004.tfrecord*"))) == 4
    assert sum(rows) == 28
    counters = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]}
    assert counters == {"rows": 28, "embedded": 27, "failed_not_found": 1}


@pytest.mark.parametrize(
    # If an image occurs again, it is a matter of chance which worker has it, and whether it is a copy.
    ("second_from", "engine"),
    [(120, load_stand_in), (0, load_independent_stand_in)],
    ids=["", "images occur twice"],
)
def test_several_workers_give_the_bytes_of_one(tmp_path, second_from, engine):
    texts = [
        "".join(f"{i}.jpg,a\n" for i in range(1, 120)),
        "".join(f"missing{i}.jpg\n{i + second_from}.jpg\n" for i in range(40)),
    ]
    shards = []
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    for folder, beam_flags in ((tmp_path / "one", []), (tmp_path / "two", flags)):
        folder.mkdir()
        spread = Spread(rows_per_element=14 if beam_flags else 1000)
        pipeline = make_pipeline(
            folder, texts, rows_per_shard=7, beam_flags=beam_flags, spread=spread, load_engine=engine
        )
        pipeline.run().wait_until_finish()
        shards.append({path.name: path.read_bytes() for path in (folder / "out").glob("train-*")})
        assert json.loads((folder / "out/_train/report.json").read_text())["rows_read"] == 199
    assert len(shards[0]) == 29
    assert shards[0] == shards[1]


@pytest.mark.parametrize(
    "beam_flags", [[], ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]], ids=["here", "workers"]
)
def test_several_sets_of_one_reading_have_the_bytes_of_one(tmp_path, beam_flags):
    texts = [
        "".join(f"{i % 250}.jpg,a\n" for i in range(1, 60)),
        "".join(f"missing{i}.jpg\n{i + 100}.jpg\n" for i in range(20)),
    ]
    spread = Spread(rows_per_element=14 if beam_flags else 1000)
    (tmp_path / "alone").mkdir()
    make_pipeline(tmp_path / "alone", texts, rows_per_shard=7).run().wait_until_finish()
    further = [("b", load_stand_in), ("c", load_gpu_stand_in)]
    pipeline = make_pipeline(tmp_path, texts, rows_per_shard=7, beam_flags=beam_flags, spread=spread, further=further)
    result = pipeline.run()
    result.wait_until_finish()
    alone = {path.name: path.read_bytes() for path in (tmp_path / "alone/out").glob("train-*")}
    for name in ("out", "b", "c"):
        assert {path.name: path.read_bytes() for path in (tmp_path / name).glob("train-*")} == alone
    counters = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]}
    assert counters["rows"] == counters["b_rows"] == counters["c_rows"] == 99
    assert counters["c_failed_not_found"] == 20


@pytest.mark.parametrize("spread", [Spread(), Spread(rows_per_element=14), Spread(rows_per_element=1, readers=3)])
def test_a_runner_that_drops_what_finish_bundle_gives_loses_no_row(tmp_path, monkeypatch, spread):
    # Beam's DaskRunner is one.
    for stage in (transforms._ReadRowBlocks, transforms._EmbedRowBlocks, transforms._FinishRecordSets):

        def finish_for_nothing(self, finish=stage.finish_bundle):
            list(finish(self) or ())

        monkeypatch.setattr(stage, "finish_bundle", finish_for_nothing)
    texts = ["".join(f"{i}.jpg,a\n" for i in range(1, 60)), "30.jpg,b\nmissing.jpg,b\n31.jpg\n"]
    make_pipeline(tmp_path, texts, rows_per_shard=7, spread=spread).run().wait_until_finish()
    report = json.loads((tmp_path / "out/_train/report.json").read_text())
    assert (report["rows_read"], report["embedded"], report["failed"]) == (62, 61, {"not_found": 1})
    assert uris(tmp_path) == [*(f"{i}.jpg" for i in range(1, 60)), "30.jpg", "31.jpg"]


def test_images_that_several_processes_load_for_a_gpu_give_the_same_bytes(tmp_path, monkeypatch):
    for number in range(1, 250):
        (tmp_path / f"{number}.jpg").write_bytes(str(number).encode())
    texts = ["".join(f"../{i}.jpg,a\n" for i in (*range(1, 250), 888)), "../1.jpg\n../2.jpg\n"]
    shards = []
    for name, parallel in (("one", False), ("several", True)):
        monkeypatch.setattr(image_source, "is_worthwhile", lambda parallel=parallel: parallel)
        (tmp_path / name).mkdir()
        images = ImageSource(decode=decode_stand_in)
        pipeline = make_pipeline(
            tmp_path / name, texts, rows_per_shard=70, load_engine=load_gpu_stand_in, images=images
        )
        pipeline.run().wait_until_finish()
        shards.append({path.name: path.read_bytes() for path in (tmp_path / name / "out").glob("train-*")})
        report = json.loads((tmp_path / name / "out/_train/report.json").read_text())
        assert (report["rows_read"], report["failed"]) == (252, {"not_found": 1})
    assert len(shards[0]) == 5
    assert shards[0] == shards[1]


def test_a_list_that_changes_after_it_was_counted_fails_the_job(tmp_path):
    with pytest.raises(Exception, match="11 rows were counted before the start, 10 were read"):
        make_pipeline(tmp_path, ["1.jpg,a\n" * 10], rows_expected=11).run()
    assert (
        json.loads(next((tmp_path / "out/_train").glob("parts-*/report.json")).read_text())["status"]
        == "books_do_not_balance"
    )
    assert not (tmp_path / "out/_train/manifest.json").exists()


@pytest.mark.parametrize("beam_flags", [[], ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]])
def test_a_list_that_changes_with_as_many_rows_fails_before_anything_is_embedded(tmp_path, beam_flags):
    texts = ["".join(f"{i}.jpg,a\n" for i in range(1, 26)), "30.jpg,b\n31.jpg,b\n"]
    pipeline = make_pipeline(tmp_path, texts, beam_flags=beam_flags)
    (tmp_path / "list1.csv").write_text("30.jpg,b\n31.jpg,a\n")
    faults.forget()
    with pytest.raises(Exception, match="list1.csv: .*changed after it was checked") as raised:
        pipeline.run().wait_until_finish()
    if not beam_flags:  # Else it was noted in another process.
        assert isinstance(faults.first_fault(), InputError)
        assert "\n" not in str(faults.first_fault())
        assert "--overwrite" in str(raised.value)
    assert not list((tmp_path / "out").rglob("*.tfrecord"))
    assert not list((tmp_path / "out").rglob("report.json"))


def test_no_image_and_no_embedding_passes_a_shuffle(tmp_path):
    proto = make_pipeline(tmp_path, ["1.jpg,a\n"]).to_runner_api()
    transforms = proto.components.transforms
    shuffles = {
        transform.unique_name
        for transform in transforms.values()
        if transform.spec.urn in ("beam:transform:group_by_key:v1", "beam:transform:reshuffle:v1")
    }
    # The one reshuffle stands before the images are read; results pass as a side input.
    assert shuffles
    assert all(name.startswith("EmbedLists/Reshuffle") for name in shuffles), shuffles
    embed = next(t for t in transforms.values() if t.unique_name == "EmbedLists/EmbedImages")
    (reader,) = (t for t in transforms.values() if set(embed.outputs.values()) & set(t.inputs.values()))
    assert reader.unique_name == "EmbedLists/FinishRecordSet"


def stages_with_code(tmp_path, *, beam_flags=()):
    """The stages of ours, as they are sent to workers."""
    proto = make_pipeline(tmp_path, ["1.jpg,a\n"], beam_flags=beam_flags).to_runner_api()
    payloads = {
        transform.unique_name: beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
        for transform in proto.components.transforms.values()
        if transform.spec.urn == "beam:transform:pardo:v1"
    }
    return [payloads[f"EmbedLists/{name}"] for name in ("ReadRows", "EmbedImages", "FinishRecordSet")]


@pytest.mark.parametrize(
    ("beam_flags", "where"),
    [
        ([], "the workers' environment"),
        (["--sdk_container_image=repo/hugs:1"], "the container image 'repo/hugs:1'"),
        (["--environment_type=DOCKER", "--environment_config=repo/hugs:2"], "the container image 'repo/hugs:2'"),
        (
            ["--environment_type=DOCKER", "--environment_options=docker_container_image=repo/hugs:3"],
            "the container image 'repo/hugs:3'",
        ),
        (["--environment_type=EXTERNAL", "--environment_config=localhost:1"], "the workers' environment"),
    ],
)
def test_a_worker_with_other_code_refuses_every_stage_of_ours(tmp_path, monkeypatch, beam_flags, where):
    stages = stages_with_code(tmp_path, beam_flags=beam_flags)
    for stage in stages:
        pickler.loads(stage)
    monkeypatch.setattr(source_digest, "source_digest", lambda: "0123456789abcdef")
    for stage in stages:
        with pytest.raises(InputError, match="has other code of hugs") as error:
            pickler.loads(stage)
        assert where in str(error.value)
        assert "Rebuild it" in str(error.value)


@pytest.mark.parametrize("module", ["preprocess/images/decode.py", "configs/prices.py"])
def test_the_digest_tells_code_apart(tmp_path, module):
    for name in ("configs", "preprocess"):
        shutil.copytree(source_digest.preprocess.__path__[0] + f"/../{name}", tmp_path / name)
    source = "from preprocess.beam.source_digest import source_digest; print(source_digest())"

    def digest_there():
        return subprocess.run(
            [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert digest_there() == source_digest.source_digest()
    (tmp_path / module).write_text("# other\n")
    assert digest_there() != source_digest.source_digest()
