"""The arithmetic behind plans, and what is known of machines."""

import dataclasses
import itertools

import numpy as np
import pytest

from configs.cloud import DataflowOptions
from configs.prices import load_prices
from pipelines.planning.dataflow_cost import Fleet, cost_on_dataflow, costs_by_workers, recommended, traffic_of
from pipelines.planning.model import ListWork, planned_cost_here
from pipelines.planning.sample import EngineCost, SampledImages, time_engine
from pipelines.runners.machine_types import machine_of
from preprocess.jobs.estimate import Estimate, exactly
from tests.support.stand_ins import StandInEngine

PRICES = load_prices("us-central1").prices


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gb", "has_bfloat16"),
    [
        ("n2-standard-4", 4, 16, False),
        ("n1-standard-8", 8, 30, False),
        ("n1-highmem-2", 2, 13, False),
        ("n1-highcpu-16", 16, 14.4, False),
        ("e2-highcpu-8", 8, 8, False),
        ("c3-highcpu-22", 22, 44, True),
        ("c3-standard-4-lssd", 4, 16, True),
        ("n2-custom-4-8192", 4, 8, False),
        ("custom-2-5120-ext", 2, 5, False),
    ],
)
def test_a_machine_s_name_says_what_it_has(name, vcpus, memory_gb, has_bfloat16):
    machine = machine_of(name)
    assert (machine.vcpus, machine.memory_gb, machine.has_bfloat16) == (vcpus, pytest.approx(memory_gb), has_bfloat16)


@pytest.mark.parametrize("name", ["e2-micro", "x9-standard-4", "n2-standard-0", "n2-mega-4", "x9-custom-4-8192"])
def test_what_is_not_known_of_a_machine_is_not_invented(name):
    assert machine_of(name) is None


SAMPLE = SampledImages(
    tried=200,
    failed={},
    failed_share=exactly(0),
    read_bytes=exactly(50_000),
    read_sec=exactly(0.01),
    decode_sec=exactly(0.002),
    handling_core_sec=0.001,
    record_uri_bytes=40,
    pixels=np.zeros((1, 2, 2, 3), np.uint8),
)
ENGINE = EngineCost(
    name="openvino float32",
    precision="float32",
    device="cpu",
    occupied_sec=Estimate(0.05, 0.057, 0.07),
    cpu_sec=0.057,
    load_sec=2.0,
    embedding_size=2048,
)


def work_of(rows, **changes):
    blocks = -(-rows // 1000)
    fields = {"split": "train", "rows": rows, "images": rows, "blocks": blocks, "rows_per_block": 1000}
    return ListWork(**{**fields, "record_bytes": 8300, "sample": SAMPLE, "gzipped": False, **changes})


def fleet_of(**options):
    return Fleet(machine=machine_of("n2-standard-4"), options=DataflowOptions(**options), prices=PRICES)


def test_the_price_has_the_disk_that_workers_get():
    def of_c3(**options):
        of_machine = DataflowOptions(machine_type="c3-standard-4", **options)
        return Fleet(machine=machine_of("c3-standard-4"), options=of_machine, prices=PRICES).hourly_price

    assert of_c3() == of_c3(disk_type="pd-ssd") > 0
    standard = fleet_of(disk_type="pd-standard").hourly_price
    assert fleet_of().hourly_price == standard < fleet_of(disk_type="pd-ssd").hourly_price


def test_the_price_has_the_gpus_that_workers_get():
    def of(machine_type, **options):
        of_machine = DataflowOptions(machine_type=machine_type, disk_type="pd-ssd", **options)
        return Fleet(machine=machine_of(machine_type), options=of_machine, prices=PRICES)

    l4 = of("g2-standard-8", gpu="l4", image="a/b:1")
    assert l4.hourly_price_of_gpus == PRICES.dataflow_l4_hour
    # It has its L4, and that is paid, whether the recipe uses it or not.
    assert of("g2-standard-8").hourly_price == l4.hourly_price
    without = of("c3-standard-8").hourly_price  # As many vCPUs, memory and disk.
    assert l4.hourly_price == pytest.approx(without + PRICES.dataflow_l4_hour)
    assert of("g2-standard-96").hourly_price_of_gpus == 8 * PRICES.dataflow_l4_hour
    t4 = of("n1-standard-8", gpu="t4", image="a/b:1")
    assert t4.hourly_price == pytest.approx(of("n1-standard-8").hourly_price + PRICES.dataflow_t4_hour)
    assert of("n1-standard-8").hourly_price_of_gpus == 0


def test_time_here_is_core_seconds_over_cores():
    wall_sec = planned_cost_here(work_of(100_000), ENGINE, cores=4, is_first=False).wall_sec
    assert wall_sec.expected == pytest.approx(100_000 * 0.06 / 4, rel=0.05)
    assert wall_sec.low < 100_000 * 0.06 / 4 < wall_sec.high
    # Half of what is tried fails: it is read, and no more.
    halved = work_of(100_000, sample=dataclasses.replace(SAMPLE, failed_share=exactly(0.5)))
    assert planned_cost_here(halved, ENGINE, cores=4, is_first=False).wall_sec.expected == pytest.approx(781, rel=0.05)
    # Storage that takes a second an image is what it waits for.
    slow = work_of(100_000, sample=dataclasses.replace(SAMPLE, read_sec=exactly(1)))
    assert planned_cost_here(slow, ENGINE, cores=4, is_first=False).wall_sec.expected == pytest.approx(3222, rel=0.05)


def test_rows_without_an_image_cost_nothing():
    whole, third = work_of(99_000), work_of(99_000, images=33_000)
    fleet = fleet_of(autoscaling="none", num_workers=1)

    def seconds_of_work(work):
        cost = cost_on_dataflow(work, ENGINE, fleet, 1).wall_sec.expected
        return cost - cost_on_dataflow(work_of(99_000, images=1), ENGINE, fleet, 1).wall_sec.expected

    assert seconds_of_work(third) == pytest.approx(seconds_of_work(whole) / 3, rel=1e-3)
    here, here_third = (planned_cost_here(work, ENGINE, cores=4, is_first=False) for work in (whole, third))
    assert here_third.wall_sec.expected == pytest.approx(here.wall_sec.expected / 3, rel=0.01)
    assert here_third.read_bytes.expected == pytest.approx(here.read_bytes.expected / 3)
    assert third.output_bytes.expected == pytest.approx(whole.output_bytes.expected / 3)
    # Which worker has the images is up to the list: at worst, one has none of the rows without.
    five = [cost_on_dataflow(work, ENGINE, fleet_of(autoscaling="none", num_workers=5), 5) for work in (whole, third)]
    assert five[0].wall_sec.high == five[1].wall_sec.high
    assert five[0].wall_sec.expected > five[1].wall_sec.expected


def test_no_more_workers_take_part_than_there_are_blocks():
    work, fleet = work_of(10_000), fleet_of(image="a/b:1")
    ten, more = (cost_on_dataflow(work, ENGINE, fleet, workers) for workers in (10, 1000))
    assert ten == more
    one = cost_on_dataflow(work, ENGINE, fleet, 1)
    assert one.wall_sec.expected > ten.wall_sec.expected
    # Seven workers have ten blocks: some of them embed two, and that is how long it takes at the least that is likely.
    seven, five = (cost_on_dataflow(work, ENGINE, fleet, workers) for workers in (7, 5))
    assert seven.wall_sec.expected == pytest.approx(five.wall_sec.expected)


def test_the_bill_is_worker_hours_and_what_moves():
    work, fleet = work_of(1_000_000), fleet_of(image="a/b:1")
    cost = cost_on_dataflow(work, ENGINE, fleet, 1)
    traffic = traffic_of(work, PRICES)
    assert traffic.class_b >= work.images
    assert fleet.hourly_price == pytest.approx(4 * 0.056 + 16 * 0.003557 + 50 * 0.000054)
    assert cost.dollars.expected == pytest.approx(cost.wall_sec.expected / 3600 * fleet.hourly_price + traffic.dollars)
    flexible = fleet_of(image="a/b:1", flexrs="cost")
    assert cost_on_dataflow(work, ENGINE, flexible, 1).dollars.expected < cost.dollars.expected
    # Without autoscaling, workers without work are paid as well.
    ten, twenty = (fleet_of(autoscaling="none", num_workers=number) for number in (10, 20))
    small = work_of(10_000)
    paid = [cost_on_dataflow(small, ENGINE, fixed, fixed.workers_allowed).dollars.expected for fixed in (ten, twenty)]
    assert paid[1] == pytest.approx(2 * paid[0], rel=0.01)


def test_workers_are_recommended_for_as_long_as_they_pay():
    small = recommended(costs_by_workers([work_of(1000)], ENGINE, fleet_of()))
    assert small.workers == 1
    costs = costs_by_workers([work_of(50_000_000), work_of(1000, split="eval")], ENGINE, fleet_of(max_workers=300))
    assert [cost.workers for cost in costs] == [1, 2, 5, 10, 20, 50, 100, 200, 300]
    assert recommended(costs).workers == 300
    assert all(one.wall_sec.expected > other.wall_sec.expected for one, other in itertools.pairwise(costs))
    assert costs[-1].wall_sec == costs[-1].jobs["train"].wall_sec


def test_an_image_is_quicker_than_installing():
    image, none = fleet_of(image="a/b:1").start_sec(1), fleet_of().start_sec(1)
    assert image.expected < none.expected
    assert fleet_of().start_sec(2).high > none.high


def test_an_engine_is_timed_on_full_batches(monkeypatch):
    monkeypatch.setattr("pipelines.planning.sample._ROUND_SEC", 0.01)
    engine = StandInEngine()
    cost = time_engine(engine, np.zeros((3, 2, 2, 3), np.uint8), batch_size=None, load_sec=1.5)
    assert set(engine.batches) == {4}
    assert 0 < cost.cpu_sec <= cost.occupied_sec.expected
    assert 0 < cost.share_of_machine <= 1
    assert (cost.name, cost.load_sec, cost.embedding_size) == ("stand_in float32", 1.5, 3)
