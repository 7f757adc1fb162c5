import concurrent.futures
import dataclasses
import json

import numpy as np
import pytest

from preprocess.backbones.backbone import BackboneSpec
from preprocess.engines import select, streams
from preprocess.engines.converted_networks import load_network
from preprocess.engines.model_cache import ModelCache
from preprocess.engines.select import EngineSpec, load_engine
from preprocess.engines.streams import MeasuredStreams, candidates, measure, with_fastest_streams
from preprocess.images.probe_images import probe_images
from tests.support import tiny_network
from tests.support.stand_ins import INFO


class DividedEngine:
    """Has streams; its embeddings say in a bit whether there are three of them."""

    batch_size = 8

    def __init__(self, number):
        self.streams, self.max_pending, self.info = number, number + 1, INFO
        self.started = 0

    def with_streams(self, number):
        return DividedEngine(number)

    def start(self, pixels):
        self.started += 1
        future = concurrent.futures.Future()
        future.set_result(np.full((len(pixels), 2), np.nextafter(1, 2) if self.streams == 3 else 1))
        return future


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(streams, "available_cores", lambda: 4)
    measured = []

    def rate(engine, pixels, *, waves):
        measured.append(engine.streams)
        return {1: 40.0, 2: 80.0, 3: 200.0, 4: 100.0}[engine.streams]

    monkeypatch.setattr(streams, "images_per_sec", rate)
    return measured


@pytest.mark.parametrize(
    ("hint", "cores", "numbers"),
    [
        (1, 1, (1,)),
        (2, 2, (2,)),
        (1, 2, (1, 2)),
        (2, 4, (2, 3, 4)),
        (4, 16, (4, 8, 16)),
        (4, 3, (3,)),
        (8, 64, (8, 23, 64)),
    ],
)
def test_the_hint_a_stream_for_each_core_and_one_between_are_measured(hint, cores, numbers):
    assert candidates(hint, cores) == numbers


def test_streams_are_measured_in_turns_and_those_that_change_a_bit_are_not_taken(four_cores):
    measured = measure(DividedEngine(2), (2, 3, 4), np.zeros((8, 2, 2, 3), np.uint8))
    assert four_cores == [2, 4, 4, 2]
    assert measured == MeasuredStreams(hint=2, images_per_sec={2: 80.0, 4: 100.0}, differ=(3,))
    assert measured.best == 4
    assert measured.describe(4) == (
        "4 streams for 4 cores; 1.25 times as fast as 2, which OpenVINO chooses; other bytes with 3"
    )


def test_what_is_hardly_faster_is_no_reason_to_leave_the_hint():
    measured = MeasuredStreams(hint=2, images_per_sec={2: 100.0, 4: 102.0})
    assert measured.best == 2
    assert measured.describe(4) == "2 streams for 4 cores; 0.98 times as fast as 4"
    assert MeasuredStreams(hint=2, images_per_sec={2: 100.0, 4: 104.0}).best == 4


def fastest(cache, images, engine=None, **key):
    return with_fastest_streams(
        engine or DividedEngine(2), {"network": "n"} | key, cache, image_size=2, expected_images=images
    )


def test_a_long_job_measures_and_the_cache_keeps_what_it_found(four_cores, tmp_path):
    cache, long = ModelCache(str(tmp_path)), 4 * streams.FEWEST_IMAGES_A_CORE
    for images in (None, long - 1):
        assert fastest(cache, images).info == INFO
    assert not four_cores
    engine = fastest(cache, long)
    assert engine.streams == 4
    assert engine.info.why == (
        f"{INFO.why}; 4 streams for 4 cores; 1.25 times as fast as 2, which OpenVINO chooses; other bytes with 3"
    )
    assert engine.info.same_numbers_as(INFO)
    del four_cores[:]
    for images in (None, 1, long):
        again = fastest(cache, images)
        assert (again.streams, again.info) == (4, engine.info)
    assert not four_cores
    # Another network, or another hint of another version of OpenVINO, is measured anew.
    assert fastest(cache, long, network="m").streams == 4
    assert fastest(cache, None, engine=DividedEngine(1)).streams == 1
    assert four_cores


def test_a_damaged_result_is_measured_anew(four_cores, tmp_path):
    cache, long = ModelCache(str(tmp_path)), 4 * streams.FEWEST_IMAGES_A_CORE
    fastest(cache, long)
    (path,) = tmp_path.glob("*/streams.json")
    path.write_text(json.dumps({"hint": 2, "images_per_sec": {"2": 1, "4": 0}, "differ": []}))
    assert fastest(ModelCache(str(tmp_path)), None).info == INFO
    assert fastest(ModelCache(str(tmp_path)), long).streams == 4


def test_one_core_has_one_stream_and_nothing_is_measured(four_cores, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "available_cores", lambda: 1)
    assert fastest(ModelCache(str(tmp_path)), 10**9, engine=DividedEngine(1)).info == INFO
    assert not four_cores


def test_the_rate_counts_whole_waves():
    engine = DividedEngine(3)
    assert streams.images_per_sec(engine, np.zeros((8, 2, 2, 3), np.uint8), waves=2) > 0
    assert engine.started == 4 + 3 * 4  # the first wave, and then one batch for each that is finished


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUGS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        tiny_network.install(patch)
        patch.setattr(select, "_loaded", {})
        yield BackboneSpec(architecture=tiny_network.NAME, weights="random", seed=3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_streams_change_no_byte(tiny, precision):
    from preprocess.engines.openvino_engine import OpenVinoEngine, cpu_has_bfloat16, read_network

    if precision == "bfloat16" and not cpu_has_bfloat16():
        pytest.skip("no bfloat16 on this processor")
    network, pixels = load_network(tiny, ModelCache()), probe_images(8)
    found = set()
    for number in (None, 1, 2):
        engine = OpenVinoEngine(read_network(network.graph_path), network.identity, precision=precision, streams=number)
        assert number is None or engine.streams <= number
        found.add(engine.start(pixels).result().tobytes())
        found.add(np.concatenate([engine.start(pixels[k : k + 3]).result() for k in (0, 3, 6)]).tobytes())
    assert len(found) == 1


def test_a_long_job_s_engine_says_what_was_measured_and_serves_short_jobs(tiny, four_cores, monkeypatch):
    monkeypatch.setattr(streams, "candidates", lambda hint, cores: (1, 2))
    monkeypatch.setattr(
        streams,
        "measure",
        lambda engine, numbers, pixels: MeasuredStreams(
            hint=engine.streams, images_per_sec={engine.streams: 50.0, 3 - engine.streams: 80.0}
        ),
    )
    spec = EngineSpec(precision="float32", expected_images=10**6)
    engine = load_engine(tiny, spec)
    assert "1.60 times as fast as" in engine.info.why
    assert load_engine(tiny, dataclasses.replace(spec, expected_images=3)) is engine
