"""Calculates the time and the price of embedding lists on Dataflow, for one worker and for many."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from configs.cloud import DataflowOptions
from configs.counts import counted
from configs.machine_families import default_disk_type
from configs.prices import Prices
from pipelines.planning.model import ListWork, at_speed, longer_of, planned_cost_of
from pipelines.planning.sample import EngineCost
from pipelines.runners.machine_types import Machine
from preprocess.jobs.estimate import Estimate, exactly
from preprocess.jobs.planned_cost import PlannedCost

# The speed of a vCPU, compared with a core of this machine. A vCPU is a hardware thread, often half of a core, and the
# service chooses the processor.
VCPU_SPEED = Estimate(0.5, 0.75, 1.1)
# Seconds from the submission until workers embed. Machines start, and then an image is fetched, or the project and
# TensorFlow are installed on each worker. None of this was measured.
START_WITH_IMAGE_SEC = Estimate(120, 210, 360)
START_WITHOUT_IMAGE_SEC = Estimate(240, 420, 900)
# Seconds until autoscaling has started all workers. Not measured.
RAMP_UP_SEC = Estimate(0, 120, 360)
# The last step, which one worker does: of each block it reads the result and the dead letters, moves the shard (a copy
# and a deletion) and deletes what is left. These are five requests of 50 to 300 ms, 32 at a time, and 2.5 ms of a core
# (`benchmarks.commit_scale`). The requests were not measured.
_FINISH_SEC_PER_BLOCK = Estimate(0.008, 0.02, 0.08)
# The pipeline's reading of the lists, before the first block is embedded: rows a core-second here, a core for each list
# (`benchmarks.list_passes`).
READ_ROWS_PER_SEC = Estimate(50_000, 90_000, 150_000)
_WORKER_NUMBERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)

# Bytes of a row that passes the shuffle, and of its result: labels, line number, digest, overhead of pickling.
_SHUFFLED_BYTES_PER_ROW = 200
# Each byte is written and read.
_SHUFFLE_PASSES = 2
# A block writes a shard, a result and dead letters, and its shard is moved. A job lists folders and writes the report,
# the manifest and other files. Counted on an emulator: two jobs with five blocks together made 60 requests of class A
# and 14 of class B, in addition to those for images.
_CLASS_A_PER_BLOCK, _CLASS_A_PER_JOB = 4, 20
_CLASS_B_PER_BLOCK, _CLASS_B_PER_JOB = 1, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fleet:
    """The workers of a Dataflow job, as the recipe describes them.

    Attributes:
      machine: the machine type of a worker.
      options: the recipe's section `dataflow`.
      prices: the prices of the region.
    """

    machine: Machine
    options: DataflowOptions
    prices: Prices

    @property
    def hourly_price(self) -> float:
        """The price of a worker with its GPUs and its disk for an hour, in US dollars."""
        prices, options = self.prices, self.options
        flexible = options.flexrs != "none"
        vcpu = prices.flexrs_vcpu_hour if flexible else prices.dataflow_vcpu_hour
        memory = prices.flexrs_memory_gb_hour if flexible else prices.dataflow_memory_gb_hour
        disk_type = options.disk_type or default_disk_type(self.machine.name)
        standard = disk_type in (None, "pd-standard")
        disk = prices.disk_standard_gb_hour if standard else prices.disk_ssd_gb_hour
        cores = self.machine.vcpus * vcpu + self.machine.memory_gb * memory
        return cores + self.hourly_price_of_gpus + options.disk_gb * disk

    @property
    def hourly_price_of_gpus(self) -> float:
        """The part of `hourly_price` that is for GPUs. A machine of g2 has L4s, whether the recipe uses them or not."""
        of_t4 = self.prices.dataflow_t4_hour if self.options.gpu == "t4" else 0.0
        return self.machine.num_l4 * self.prices.dataflow_l4_hour + of_t4

    def start_sec(self, workers: int) -> Estimate:
        """The seconds from the submission until `workers` workers embed."""
        start = START_WITHOUT_IMAGE_SEC if self.options.image is None else START_WITH_IMAGE_SEC
        grows = self.grows and (self.options.num_workers or 1) < workers
        return start + RAMP_UP_SEC if grows else start

    @property
    def grows(self) -> bool:
        """Whether the service chooses the number of workers."""
        return self.options.autoscaling == "throughput"

    @property
    def workers_allowed(self) -> int:
        """The largest number of workers that the recipe allows. Without autoscaling their number is constant."""
        return self.options.max_workers if self.grows else self.options.num_workers or 1

    def workers_paid(self, taking_part: int) -> int:
        """The number of workers that are paid if so many have work."""
        return taking_part if self.grows else self.workers_allowed

    def allowing(self, workers: int) -> Fleet:
        """The same fleet, but the recipe allows so many workers."""
        num_workers = min(self.options.num_workers or workers, workers) if self.grows else workers
        started = None if self.grows and self.options.num_workers is None else num_workers
        return dataclasses.replace(
            self, options=dataclasses.replace(self.options, max_workers=workers, num_workers=started)
        )

    def numbers_of_workers(self, most_blocks: int) -> list[int]:
        """The numbers of workers to plan for: up to what the recipe allows and the longest list can use."""
        if not self.grows:
            return [self.workers_allowed]
        most = min(self.workers_allowed, most_blocks)
        return [number for number in _WORKER_NUMBERS if number < most] + [most]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobCost:
    """The cost of embedding one list on Dataflow.

    Attributes:
      workers: the number of workers that take part.
      wall_sec: seconds from the submission to the report.
      dollars: the price of workers, shuffle and operations on storage.
      serial_sec: the part of `wall_sec` that more workers do not shorten.
    """

    workers: int
    wall_sec: Estimate
    dollars: Estimate
    serial_sec: SerialTime

    @property
    def embed_sec(self) -> float:
        """The part of the expected time that more workers shorten."""
        return self.wall_sec.expected - self.serial_sec.total.expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class SerialTime:
    """The part of a job's time that more workers do not shorten.

    Attributes:
      start: until workers embed: machines, and the network.
      read: reading the lists; each is read by one worker.
      finish: the last step, which one worker does.
    """

    start: Estimate
    read: Estimate
    finish: Estimate

    @property
    def total(self) -> Estimate:
        """All of it."""
        return self.start + self.read + self.finish

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {name: getattr(self, name).to_json() for name in ("start", "read", "finish")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """The traffic of the jobs. It does not depend on the number of workers.

    Attributes:
      shuffle_bytes: the bytes that pass Dataflow Shuffle: rows, and results of blocks.
      class_a: the number of operations of Cloud Storage that write or list.
      class_b: the number of operations of Cloud Storage that read.
      dollars: the price of all three.
    """

    shuffle_bytes: float
    class_a: int
    class_b: int
    dollars: float


def traffic_of(work: ListWork, prices: Prices) -> Traffic:
    """The traffic of embedding a list. All images are counted as if they were in a bucket."""
    row_bytes = work.sample.record_uri_bytes + _SHUFFLED_BYTES_PER_ROW
    shuffle_bytes = work.rows * row_bytes * _SHUFFLE_PASSES
    class_a = work.sets * (work.blocks * _CLASS_A_PER_BLOCK + _CLASS_A_PER_JOB)
    class_b = work.images + work.sets * (work.blocks * _CLASS_B_PER_BLOCK + _CLASS_B_PER_JOB)
    dollars = (
        shuffle_bytes / 1e9 * prices.shuffle_gb
        + class_a / 1e4 * prices.storage_class_a_10000
        + class_b / 1e4 * prices.storage_class_b_10000
    )
    return Traffic(shuffle_bytes=shuffle_bytes, class_a=class_a, class_b=class_b, dollars=dollars)


def cost_on_dataflow(work: ListWork, engine: EngineCost, fleet: Fleet, workers: int) -> JobCost:
    """The cost of a list on Dataflow with at most `workers` workers.

    One worker embeds a block, with all of its vCPUs. So more workers than blocks are of no use, and some workers have
    no work during the last blocks.
    """
    taking_part = min(workers, work.blocks)
    sec_per_image = at_speed(work.core_sec_per_image(engine), VCPU_SPEED) * (1 / fleet.machine.vcpus)
    evenly = work.images / taking_part
    most_rows = min(math.ceil(work.blocks / taking_part) * work.rows_per_block, work.rows)
    longest = most_rows * (work.images / work.rows)
    # In the worst case, all rows without an image are in the blocks of other workers.
    work_sec = sec_per_image * Estimate(min(evenly, longest), longest, max(longest, min(most_rows, work.images)))
    read_here = (1.0 / READ_ROWS_PER_SEC) * work.rows
    serial_sec = SerialTime(
        start=fleet.start_sec(taking_part) + exactly(engine.load_sec),
        read=at_speed(read_here, VCPU_SPEED) * (1 / min(work.lists, taking_part * fleet.machine.vcpus)),
        finish=_FINISH_SEC_PER_BLOCK * (work.blocks * work.sets),
    )
    wall_sec = serial_sec.total + work_sec
    # Autoscaling adds some workers later and ends some earlier: it is expected that one worker is paid while only one
    # has work, and at worst all are. Without autoscaling all are.
    paid = fleet.workers_paid(taking_part)
    alone_sec = serial_sec.read + serial_sec.finish
    alone_paid = Estimate(1, 1, paid) if fleet.grows else exactly(paid)
    paid_sec = (serial_sec.start + work_sec) * paid + alone_sec * alone_paid
    dollars = paid_sec * (fleet.hourly_price / 3600) + exactly(traffic_of(work, fleet.prices).dollars)
    return JobCost(workers=taking_part, wall_sec=wall_sec, dollars=dollars, serial_sec=serial_sec)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FleetCost:
    """The cost of all lists on Dataflow. Each list is a job, and all jobs are submitted at the same time.

    Attributes:
      workers: the largest number of workers of a job.
      wall_sec: seconds until the last job is done.
      dollars: the price of all jobs.
      jobs: the cost of each job, by split.
    """

    workers: int
    wall_sec: Estimate
    dollars: Estimate
    jobs: dict[str, JobCost]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {
            "workers": self.workers,
            "wall_sec": self.wall_sec.to_json(),
            "dollars": self.dollars.to_json(),
            "jobs": {
                split: {
                    "workers": job.workers,
                    "wall_sec": job.wall_sec.to_json(),
                    "dollars": job.dollars.to_json(),
                    "serial_sec": job.serial_sec.to_json(),
                }
                for split, job in self.jobs.items()
            },
        }


def costs_by_workers(works: list[ListWork], engine: EngineCost, fleet: Fleet) -> list[FleetCost]:
    """The cost of all lists for several numbers of workers, in ascending order."""
    numbers = fleet.numbers_of_workers(max(work.blocks for work in works))
    return [cost_of_all(works, engine, fleet, workers) for workers in numbers]


def cost_of_all(works: list[ListWork], engine: EngineCost, fleet: Fleet, workers: int) -> FleetCost:
    """The cost of all lists with at most `workers` workers for each."""
    jobs = {work.split: cost_on_dataflow(work, engine, fleet, workers) for work in works}
    longest, dollars = exactly(0), exactly(0)
    for job in jobs.values():
        longest = longer_of(longest, job.wall_sec)
        dollars = dollars + job.dollars
    return FleetCost(workers=workers, wall_sec=longest, dollars=dollars, jobs=jobs)


def recommended(costs: list[FleetCost]) -> FleetCost:
    """The recommended cost: with more workers, the price grows by a larger factor than the time shrinks."""
    return min(costs, key=lambda cost: cost.wall_sec.expected * cost.dollars.expected)


def planned_cost_on_dataflow(work: ListWork, engine: EngineCost, fleet: Fleet, workers: int) -> PlannedCost:
    """The planned cost of a list on Dataflow with the largest number of workers that the recipe allows."""
    cost = cost_on_dataflow(work, engine, fleet, workers)
    where = f"Dataflow, at most {counted(workers, fleet.machine.name)}, {engine.name}"
    if fleet.options.flexrs != "none":
        where += ", the wait of FlexRS not counted"
    return planned_cost_of(work, cost.wall_sec, where=where)
