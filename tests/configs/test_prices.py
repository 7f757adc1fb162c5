import dataclasses
import re

import pytest
from apache_beam.testing.load_tests import dataflow_cost_consts

from configs.errors import InputError
from configs.prices import Prices, load_prices, parse_prices
from configs.recipe import load_recipe, recipe_names

FIELDS = [field.name for field in dataclasses.fields(Prices)]
BASE = "us-central1:\n" + "".join(f"  {name}: {number}.5\n" for number, name in enumerate(FIELDS))


def test_the_project_s_own_prices_are_read_and_are_no_recipe():
    found = load_prices("us-central1")
    assert found.region == "us-central1"
    assert 0 < found.prices.flexrs_vcpu_hour < found.prices.dataflow_vcpu_hour < 1
    assert "prices" not in recipe_names()
    with pytest.raises(InputError, match="there is none of this name"):
        load_recipe("prices")


def test_what_workers_cost_is_what_beam_counts_with():
    prices = load_prices("us-central1").prices
    assert prices.dataflow_vcpu_hour == dataflow_cost_consts.VCPU_PER_HR_BATCH
    assert prices.dataflow_memory_gb_hour == dataflow_cost_consts.MEM_PER_GB_HR_BATCH
    assert prices.dataflow_t4_hour == dataflow_cost_consts.T4_PER_GPU_PER_HOUR
    assert prices.dataflow_l4_hour == dataflow_cost_consts.L4_PER_GPU_PER_HOUR
    assert prices.disk_standard_gb_hour == dataflow_cost_consts.PD_PER_GB_HR
    assert prices.disk_ssd_gb_hour == dataflow_cost_consts.PD_SSD_PER_GB_HR
    assert prices.shuffle_gb == dataflow_cost_consts.SHUFFLE_PER_GB_BATCH


def test_a_region_has_its_own_prices_a_multiple_or_those_of_us_central1(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(BASE + "europe-west1: {multiplier: 2}\n" + BASE.replace("us-central1", "asia-east1"))
    base = load_prices("us-central1", str(path))
    twice = load_prices("europe-west1", str(path))
    assert [getattr(twice.prices, name) for name in FIELDS] == [2 * (number + 0.5) for number in range(len(FIELDS))]
    assert load_prices("asia-east1", str(path)).prices == base.prices
    elsewhere = load_prices("europe-west4", str(path))
    assert (elsewhere.region, elsewhere.prices, elsewhere.source) == ("us-central1", base.prices, str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "prices are a mapping of regions such as `us-central1:`"),
        ("5", "prices are a mapping"),
        ("us-central1: [", "line 1, column"),
        ("europe-west1: {multiplier: 1}", "has no block us-central1"),
        (BASE + "europe-wst1: {multiplier: 1}", f"line {len(FIELDS) + 2}: europe-wst1 is not a region of Google Cloud"),
        (BASE + "europe-wst1: {multiplier: 1}", "Did you mean 'europe-west1'?"),
        (BASE + "europe-west1: 2", "europe-west1 must be a block of prices. Received: 2."),
        (BASE + "europe-west1: {shuffle_gb: 2}", "europe-west1 lacks dataflow_vcpu_hour"),
        (BASE + "europe-west1: {multiplier: 2, shuffle_gb: 2}", "europe-west1.multiplier must stand alone"),
        (BASE + "europe-west1: {multiplier: 0}", "europe-west1.multiplier must be a number above 0"),
        (BASE + "europe-west1: {multiplier: yes}", "above 0 and below 100. Received: True."),
        (BASE + "  multiplier: 1\n", "us-central1.multiplier is not a price"),
        (BASE + "  shuffle: 1\n", f"line {len(FIELDS) + 2}: us-central1.shuffle is not a price"),
        (BASE + "  shuffle: 1\n", "Did you mean 'shuffle_gb'?"),
        (BASE + "  shuffle_gb: 1\n", "us-central1.shuffle_gb is given twice"),
        (BASE.replace("0.5", "-0.5"), "line 2: us-central1.dataflow_vcpu_hour must be a number of US dollars"),
        (BASE.replace("0.5", "cheap"), "Received: 'cheap'."),
        (BASE.replace("0.5", ".inf"), "Received: inf."),
        (BASE.replace("0.5", "true"), "Received: True."),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, expected):
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        parse_prices(text.encode(), where="mine.yaml")
    assert str(caught.value).startswith("mine.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_prices("us-central1", str(tmp_path / "none.yaml"))
