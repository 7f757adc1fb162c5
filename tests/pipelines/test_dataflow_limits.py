"""A job of 50 million rows against the limits of Dataflow that docs/cloud.md lists with their sources."""

import hashlib
import json
import pathlib
import pickle

import apache_beam as beam
import numpy as np
import pytest

from preprocess.beam.transforms import EmbedLists, EmbedOptions
from preprocess.jobs.block_results import StoredResult
from preprocess.lists.blocks import Spread, into_blocks, joined_blocks
from preprocess.lists.labels import LabelDict
from preprocess.lists.rows import Row
from tests.support.dataflow_job import QUICK, run_embed
from tests.support.stand_ins import load_stand_in, make_job

ROWS = 50_000_000
ROWS_PER_BLOCK = 1024
LISTS = 5_000
MAX_REQUEST_BYTES = 20_000_000
MAX_GRAPH_BYTES = 10_000_000
# Beam's data plane refuses more than 2 GB and warns above 512 MB; this leaves room for long names.
MAX_ELEMENT_BYTES = 10_000_000
MAX_SIDE_INPUT_BYTES = 100_000_000
FOLDER = "gs://a-bucket-with-a-long-name/data/2026-11-26/lists-of-labelled-photos"


def graph_bytes(*, lists, labels):
    paths = tuple(f"{FOLDER}/part-{number:05d}-of-{lists:05d}.csv" for number in range(lists))
    digests = tuple(hashlib.sha256(path.encode()).hexdigest() for path in paths)
    names = tuple(f"the name of label {number}" for number in range(labels))
    job = make_job(
        pathlib.Path("out"),
        input_paths=paths,
        input_sha256=digests,
        labels=names,
        definition={"input_path": [list(pair) for pair in zip(paths, digests, strict=True)]},
    )
    options = EmbedOptions(unknown_labels="skip", load_engine=load_stand_in)
    pipeline = beam.Pipeline(runner="DirectRunner")
    _ = pipeline | "EmbedLists" >> EmbedLists(job=job, labels=LabelDict(names), options=options)
    return len(pipeline.to_runner_api().SerializeToString())


def test_five_thousand_lists_fit_into_the_graph():
    few, many = graph_bytes(lists=1, labels=2), graph_bytes(lists=LISTS, labels=20_000)
    assert few < 100_000
    assert many < MAX_GRAPH_BYTES / 4


def test_the_request_does_not_hold_the_graph(cloud):
    _, service = cloud
    run_embed(service, *QUICK)
    (job,) = service.jobs
    assert len(json.dumps(job.posted)) < MAX_REQUEST_BYTES / 100


@pytest.mark.parametrize("name_bytes", [100, 1000])
def test_blocks_of_rows_are_small_elements(name_bytes):
    spread = Spread.over_workers(rows=ROWS, rows_per_block=ROWS_PER_BLOCK, lists=1, moves_blocks=True)
    numbers = np.random.default_rng(0)
    uri = "gs://a-bucket/".ljust(name_bytes - 32, "x")
    rows = (Row(f"{uri}{numbers.bytes(16).hex()}", ("a label",), (1,), line) for line in range(10_000))
    blocks = into_blocks(rows, list_index=0, list_path=f"{FOLDER}/train.csv", rows_per_block=ROWS_PER_BLOCK)
    element = next(joined_blocks(blocks, reader=0, spread=spread))
    assert sum(len(block.rows) for block in element) == spread.rows_per_element == 4096
    assert len(pickle.dumps(element)) < MAX_ELEMENT_BYTES / 20


def test_the_last_step_is_given_a_short_name_for_each_block():
    name = f"_{'train' * 10}/parts-0123456789ab/00000-0000000-01234567-0123456789ab.result.json"
    size = len(pickle.dumps(StoredResult(name)))
    assert size * ROWS / ROWS_PER_BLOCK < MAX_SIDE_INPUT_BYTES / 5
