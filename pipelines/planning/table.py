"""The table of a plan for people: the cost of each list here, the cost of all on Dataflow, and the assumptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from configs.counts import counted
from pipelines.planning import amounts
from preprocess.jobs.estimate import Estimate, exactly


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines, with the cells of each column aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


_estimate = Estimate.from_json


def _sum(estimates: Sequence[Estimate]) -> Estimate:
    total = exactly(0)
    for estimate in estimates:
        total = total + estimate
    return total


def _sample_lines(plan: dict[str, Any]) -> Iterator[str]:
    lists, allowed = plan["lists"], plan["max_failed_percent"]
    rows = [("list", "rows", "images", "sample", "failed", "an image", "decoding")]
    for entry in lists:
        sample = entry["sample"]
        rows.append(
            (
                entry["split"],
                f"{entry['rows']:,}",
                f"{entry['images']:,}",
                f"{sample['tried']:,}",
                amounts.number(_estimate(sample["failed_share"]) * 100.0, "%"),
                amounts.num_bytes(_estimate(sample["read_bytes"])),
                amounts.number(_estimate(sample["decode_sec"]) * 1e3, "ms"),
            )
        )
    yield from _columns(rows)
    for entry in lists:
        if entry.get("views"):
            yield f"  {entry['split']}: {entry['views']['count']} views of each image, from one decode"
    for entry in lists:
        if entry["sample"]["failed"]:
            reasons = ", ".join(f"{reason} {count}" for reason, count in entry["sample"]["failed"].items())
            too_many = 100 * entry["sample"]["failed_share"]["expected"] > allowed
            outcome = f"; more than max_failed_percent ({allowed:g}) allows, so the job would fail" if too_many else ""
            yield f"  {entry['split']}: of {entry['sample']['tried']} images tried, failed: {reasons}{outcome}"


def _here_lines(plan: dict[str, Any]) -> Iterator[str]:
    lists = plan["lists"]
    cores = plan["machine"]["cores"]
    yield f"on this machine ({counted(cores, 'core')}, {plan['engine']['name']})"
    rows = [("list", "time", "images/s", "reads", "writes")]
    for entry in lists:
        here = entry["predictions"]["here"]
        rows.append(
            (
                entry["split"],
                amounts.duration(_estimate(here["wall_sec"])),
                amounts.number(_estimate(here["images_per_sec"])),
                amounts.num_bytes(_estimate(here["read_bytes"])),
                amounts.num_bytes(_estimate(entry["output_bytes"])),
            )
        )
    if len(lists) > 1:
        rows.append(
            (
                "all",
                amounts.duration(_sum([_estimate(entry["predictions"]["here"]["wall_sec"]) for entry in lists])),
                "",
                amounts.num_bytes(_sum([_estimate(entry["predictions"]["here"]["read_bytes"]) for entry in lists])),
                amounts.num_bytes(_sum([_estimate(entry["output_bytes"]) for entry in lists])),
            )
        )
    yield from _columns(rows)
    free_bytes = plan["machine"]["free_bytes"]
    if free_bytes is not None:
        most = sum(entry["output_bytes"]["high"] for entry in lists)
        verdict = "which is too little for what is written" if most > free_bytes else "which is enough"
        yield f"  {amounts.num_bytes(free_bytes)} are free there, {verdict}"


def _dataflow_lines(dataflow: dict[str, Any], *, check_sec: float) -> Iterator[str]:
    if dataflow["why_not"]:
        yield f"on Dataflow: no prediction: {dataflow['why_not']}"
        return
    of_gpus = dataflow["hourly_price_of_gpus"]
    yield (
        f"on Dataflow ({dataflow['machine_type']}: {dataflow['vcpus']} vCPUs and {dataflow['memory_gb']:g} GB for "
        f"{amounts.dollars(dataflow['hourly_price'])} an hour"
        f"{f', {amounts.dollars(of_gpus)} of it for its GPU,' if of_gpus else ''} at the prices of "
        f"{dataflow['region']}; {dataflow['engine']['name']})"
    )
    rows = [("", "workers a list", "time", "cost")]
    rows += [
        (
            "*" if cost["workers"] == dataflow["recommended_workers"] else "",
            f"{cost['workers']:,}",
            amounts.duration(_estimate(cost["wall_sec"])),
            amounts.dollars(_estimate(cost["dollars"])),
        )
        for cost in dataflow["by_workers"]
    ]
    yield from _columns(rows)
    if len(dataflow["by_workers"]) > 1:
        yield "  * with more, the bill grows faster than the time shrinks"
    if dataflow["most_blocks"] < dataflow["workers_allowed"]:
        yield (
            f"  at most {counted(dataflow['most_blocks'], 'worker')} of {dataflow['workers_allowed']:,} can work "
            f"at the same time: each works on {dataflow['rows_per_block']:,} rows of a list (--rows_per_shard), and "
            f"the longest list has {counted(dataflow['most_blocks'], 'such piece')}"
        )
    if dataflow["scaling"] is not None:
        yield from _scaling_lines(dataflow["scaling"], allowed=dataflow["workers_allowed"], check_sec=check_sec)
    traffic = dataflow["traffic"]
    yield (
        f"  in that: {traffic['class_a']:,} class A and {traffic['class_b']:,} class B operations on Cloud Storage "
        f"and {amounts.num_bytes(traffic['shuffle_bytes'])} of shuffle, {amounts.dollars(traffic['dollars'])}; "
        f"a disk of {dataflow['disk_gb']} GB a worker"
    )


def _scaling_lines(scaling: dict[str, Any], *, allowed: int, check_sec: float) -> Iterator[str]:
    """What more workers are worth."""
    yield f"with 20, 200 and 1,000 workers ({scaling['split']} has {scaling['blocks']:,} blocks of rows)"
    rows = [("", "workers a list", "time", "cost", "blocks each", "vCPUs", "images read a second")]
    rows += [
        (
            "+" if cost["workers"] > allowed else "",
            f"{cost['workers']:,}",
            amounts.duration(_estimate(cost["wall_sec"])),
            amounts.dollars(_estimate(cost["dollars"])),
            amounts.number(cost["blocks_per_worker"]),
            f"{cost['vcpus']:,}",
            f"{cost['reads_per_sec']:,}",
        )
        for cost in scaling["by_workers"]
    ]
    yield from _columns(rows)
    if any(row[0] for row in rows):
        yield f"  + more than the recipe allows (dataflow.max_workers: {allowed:,})"
    serial = {name: _estimate(seconds) for name, seconds in scaling["serial_sec"].items()}
    yield f"  of the time {amounts.duration(_sum(list(serial.values())))} stays with any number of workers"
    yield f"    {amounts.duration(serial['start'])} until they embed"
    files = counted(scaling["lists"], "file")
    yield f"    {amounts.duration(serial['read'])} to read the rows: a worker for each of {files}"
    yield f"    {amounts.duration(serial['finish'])} for the last step: one worker moves {scaling['blocks']:,} shards"
    more = amounts.duration(_estimate(scaling["duplicates_sec"]))
    yield f"    and at most {more} more, not counted, to find the names of images that occur twice"
    yield f"  before it, this machine checks the lists. That took {amounts.duration(check_sec)} just now"
    yield (
        f"  with {scaling['half_embeds_at_workers']:,} workers half of the time is embedding: twice as many save a "
        f"quarter of it. A job has at most {scaling['most_workers']:,} workers"
    )
    if any(cost["reads_per_sec"] > scaling["first_reads_per_sec"] for cost in scaling["by_workers"]):
        yield (
            f"  a bucket answers about {scaling['first_reads_per_sec']:,} reads a second at first, and twice as many "
            "each 20 minutes: start with fewer workers, or put the images into several buckets"
        )
    yield "  ask for quota of vCPUs, disks and addresses of the region before you raise dataflow.max_workers"


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """The lines of the table for a plan, as `pipelines.plan` makes it."""
    engine = plan["engine"]
    on_cpu = engine["device"] == "cpu"
    per_image = engine["cpu_sec"] if on_cpu else engine["occupied_sec"]["expected"]
    cost = f"{amounts.number(1e3 * per_image, 'ms')} of {'a core' if on_cpu else 'the GPU'}"
    yield f"recipe {plan['recipe']}, lists in {plan['data_dir']}; the network takes {cost} an image ({engine['name']})"
    yield from _sample_lines(plan)
    yield ""
    yield from _here_lines(plan)
    yield ""
    yield from _dataflow_lines(plan["dataflow"], check_sec=sum(entry["scan_sec"] for entry in plan["lists"]))
    yield ""
    yield "what this rests on"
    for line in plan["assumptions"]:
        yield f"  - {line}"
