"""The assumptions of a plan in words: what was measured, what was not measured, and what is not counted."""

from __future__ import annotations

from collections.abc import Iterator

from configs.machine_families import default_disk_type
from configs.prices import RegionPrices
from configs.recipe import Recipe
from pipelines.planning import amounts
from pipelines.planning.dataflow_cost import RAMP_UP_SEC, VCPU_SPEED, Fleet
from pipelines.planning.model import HERE_SPEED
from pipelines.planning.sample import EngineCost

_WORTH_SAYING_PERCENT = 10


def assumptions_of(
    recipe: Recipe, prices: RegionPrices, *, here: EngineCost, remote: EngineCost, fleet: Fleet | None
) -> list[str]:
    """The assumptions of a plan, one on each line.

    Args:
      recipe: the recipe whose lists are planned.
      prices: the prices of the plan.
      here: the engine of this machine.
      remote: the engine of the workers; it differs from `here` only if the workers cannot run that one.
      fleet: the workers; None if the plan has no cost for Dataflow.
    """
    lines = [
        "the first number is what is expected, those in brackets are low and high: two standard errors of the sample, "
        "and the ranges below",
        f"this machine runs {HERE_SPEED.low:g} to {HERE_SPEED.high:g} times as fast as when it was measured just now",
    ]
    taken_percent = 100 * (1 - here.share_of_machine)
    if here.device == "cpu" and taken_percent >= _WORTH_SAYING_PERCENT:
        lines.append(
            f"other programs took about {taken_percent:.0f} % of this machine meanwhile, and go on; the low end is "
            "without them"
        )
    if fleet is not None:
        lines += _of_dataflow(recipe, prices, here=here, remote=remote, fleet=fleet)
    return lines


def _of_dataflow(
    recipe: Recipe, prices: RegionPrices, *, here: EngineCost, remote: EngineCost, fleet: Fleet
) -> Iterator[str]:
    options = recipe.dataflow
    start = fleet.start_sec(1)
    yield (
        f"a vCPU of {fleet.machine.name} does {VCPU_SPEED.low:g} to {VCPU_SPEED.high:g} of what a core does here, "
        f"{VCPU_SPEED.expected:g} expected. Not measured"
    )
    image = "with an image" if options.image else "without an image (dataflow.image: it is quicker with one)"
    yield f"workers embed {amounts.duration(start)} after the submission {image}. Not measured"
    if options.autoscaling == "throughput":
        yield f"autoscaling takes {amounts.duration(RAMP_UP_SEC)} to reach all workers. Not measured"
    if remote is not here:
        yield (
            f"{fleet.machine.name} lacks bfloat16, which is what embeds here: Dataflow is planned with {remote.name}, "
            "timed here"
        )
    elif fleet.machine.has_bfloat16 and here.precision == "float32" and recipe.preprocess.precision == "auto":
        yield f"{fleet.machine.name} has bfloat16, which this machine lacks or is not faster with: it may be faster"
    if options.flexrs != "none":
        yield f"with FlexRS ({options.flexrs}) the job may wait up to six hours before it starts: not counted"
    if prices.region != recipe.cloud.region:
        yield f"{prices.source} has no prices for {recipe.cloud.region}: those of {prices.region} are used"
    yield f"list prices of {prices.region} from {prices.source}: check them before you rely on them"
    disk_type = options.disk_type or default_disk_type(options.machine_type)
    if disk_type not in (None, "pd-standard", "pd-ssd"):
        yield f"a disk of type {disk_type} costs what pd-ssd does"
    yield (
        "images lie in a bucket of the same region. Not counted: training, keeping the records, traffic between regions"
    )
