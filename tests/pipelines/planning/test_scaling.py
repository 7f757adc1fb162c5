"""What a plan says of lists of tens of millions of rows."""

import json

import pytest

from pipelines.planning.scaling import scaling_of
from pipelines.planning.table import _scaling_lines
from tests.pipelines.planning.test_model import ENGINE, fleet_of, work_of

ROWS = 50_000_000


@pytest.fixture(scope="module")
def scaling():
    return scaling_of([work_of(ROWS), work_of(500_000, split="eval")], ENGINE, fleet_of(image="a/b:1"))


def test_short_lists_have_no_table_of_many_workers():
    assert scaling_of([work_of(399_000)], ENGINE, fleet_of()) is None
    assert scaling_of([work_of(400_000)], ENGINE, fleet_of()) is not None


def test_hours_and_dollars_for_twenty_two_hundred_and_a_thousand_workers(scaling):
    rows = scaling["by_workers"]
    assert [row["workers"] for row in rows] == [20, 200, 1000]
    hours = [row["wall_sec"]["expected"] / 3600 for row in rows]
    # 50 million images of 0.06 core-seconds, on vCPUs that do 0.75 of a core: 278 vCPU-hours for each worker of 20...
    assert hours[0] == pytest.approx(ROWS * 0.06 / 0.75 / 20 / 4 / 3600, rel=0.05)
    assert 5 < hours[0] / hours[1] < 10
    assert 1 < hours[1] / hours[2] < 5
    # The work costs the same; what more workers cost is that they all start, and the tail of the blocks.
    dollars = [row["dollars"]["expected"] for row in rows]
    assert dollars[0] < dollars[1] < dollars[2] < 1.5 * dollars[0]
    assert [row["vcpus"] for row in rows] == [160, 1600, 4 * (1000 + 500)]
    assert [row["blocks_per_worker"] for row in rows] == [2500, 250, 50]


def test_where_it_stops_scaling(scaling):
    serial = sum(part["expected"] for part in scaling["serial_sec"].values())
    # The last step does fifty thousand shards; one worker reads one file.
    assert scaling["serial_sec"]["finish"]["expected"] > 600
    assert scaling["serial_sec"]["read"]["expected"] > 300
    half = scaling["half_embeds_at_workers"]
    assert ROWS * 0.06 / 0.75 / 4 / half == pytest.approx(serial, rel=0.1)
    assert scaling["most_workers"] == 4000
    # 50 million records of 8.3 KB at 300 MB/s.
    assert scaling["duplicates_sec"]["expected"] == pytest.approx(1383, rel=0.01)
    many = scaling_of([work_of(ROWS, lists=5000)], ENGINE, fleet_of(image="a/b:1"))
    assert many["serial_sec"]["read"]["expected"] < 1
    assert many["half_embeds_at_workers"] > half


def test_a_fleet_that_does_not_grow_is_paid_all_the_time():
    growing, fixed = (
        scaling_of([work_of(ROWS)], ENGINE, fleet_of(image="a/b:1", **options))["by_workers"][2]
        for options in ({"num_workers": 50, "max_workers": 100}, {"autoscaling": "none", "num_workers": 10})
    )
    assert fixed["dollars"]["expected"] > 1.1 * growing["dollars"]["expected"]
    assert fixed["dollars"]["high"] == pytest.approx(growing["dollars"]["high"], rel=0.1)


def test_the_table_is_short_and_says_what_to_do(scaling):
    json.dumps(scaling)
    lines = list(_scaling_lines(scaling, allowed=20, check_sec=300))
    assert len(lines) == 15
    assert all(len(line) < 170 for line in lines)
    text = "\n".join(lines)
    assert "  +   1,000" in text and "  +   20 " not in text
    assert "more than the recipe allows (dataflow.max_workers: 20)" in text
    assert "stays with any number of workers" in text
    assert "to read the rows: a worker for each of 1 file\n" in text
    assert "one worker moves 50,000 shards\n" in text
    assert "at most 23 min (12 - 69) more, not counted, to find the names of images that occur twice\n" in text
    assert "this machine checks the lists. That took 5 min just now\n" in text
    assert "twice as many save a quarter" in text
    assert "a bucket answers about 5,000 reads a second at first" in text
