"""Plans the embedding of a recipe's lists: its time, bytes and cost, before anything is embedded or paid for.

    python -m pipelines.plan --recipe hugs --data_dir data/

The program counts the rows of each list, reads and decodes a sample of its images, and runs the network on some of
them. From this it calculates time, bytes and cost: on this machine, and on Dataflow with the recipe's workers. It
writes one file, DATA_DIR/RECIPE_plan.json. A run of pipelines.preproc compares this plan with what the run really took.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.activity import doing
from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.large_imports import without_garbage_collection
from configs.option import add_flags, given_values, option, options_of
from configs.prices import load_prices
from configs.program import begins_again, run_program
from configs.recipe import PreprocessOptions, Recipe, load_recipe
from configs.rules import PathText, Whole
from configs.several_backbones import options_of_each
from pipelines.checks.embed_flags import BatchOptions, with_flags
from pipelines.recipe_lists import RecipeListOptions, check_data_dir, find_lists, plan_path

if TYPE_CHECKING:
    from configs.prices import RegionPrices
    from preprocess.backbones.backbone import BackboneSpec

# What --help says of the flags of pipelines.embed that matter most here.
_HELP = {
    "weights": "as for hugs embed; random ones take the same time as real ones",
    "engine": "as for hugs embed",
    "precision": "as for hugs embed",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions(BatchOptions, RecipeListOptions):
    """The options of the program, without those of `pipelines.embed` that a recipe has."""

    sample: int = option(200, Whole(1), help="images to try of each list", decides="neither", metavar="N")
    output: str | None = option(
        None,
        PathText(),
        help="where the plan goes",
        decides="neither",
        metavar="FILE",
        default_words="DATA_DIR/RECIPE_plan.json",
    )
    prices: str | None = option(
        None,
        PathText(),
        help="prices to calculate with",
        decides="neither",
        metavar="FILE",
        default_words="those in configs/prices.yaml",
    )


def _parse(argv: Sequence[str] | None) -> tuple[PlanOptions, Recipe]:
    """The options, and the recipe with what the command line overrides."""
    parser = OneLineParser(
        module="pipelines.plan",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="The program also takes all other flags of hugs embed that say how images are read and embedded.",
    )
    add_flags(parser, options_of(PlanOptions))
    add_flags(parser, options_of(PreprocessOptions), help=_HELP)
    args = parser.parse_args(argv)
    options = PlanOptions(**given_values(args, PlanOptions))
    recipe = load_recipe(options.recipe)
    return options, dataclasses.replace(recipe, preprocess=with_flags(recipe.preprocess, args))


@begins_again()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: a flag, the recipe, the prices or a list is wrong, no image of a sample can be used, or the weights
        are not available.
    """
    options, recipe = _parse(argv)
    prices = load_prices(recipe.cloud.region, options.prices)
    data_dir = check_data_dir(options.data_dir)
    output = options.output or plan_path(data_dir, recipe.name)
    return _plan(
        recipe, prices, data_dir=data_dir, output=output, sample_size=options.sample, batch_size=options.batch_size
    )


def _plan(
    recipe: Recipe, prices: RegionPrices, *, data_dir: str, output: str, sample_size: int, batch_size: int | None
) -> int:
    # Imported here so that --help and wrong flags answer at once.
    with doing("loading Apache Beam"), without_garbage_collection():
        from preprocess.beam.beam_storage import BeamStorage
    from pipelines.checks.preflight import check_reachable, read_label_dict, scan_lists
    from pipelines.checks.web_hosts import check_web_hosts
    from pipelines.planning.contents import PlannedList, make_plan
    from pipelines.planning.file import check_output, write_plan
    from pipelines.planning.table import plan_lines
    from preprocess.backbones.backbone import BackboneSpec, complete_spec
    from preprocess.beam.beam_storage import BeamStorage
    from preprocess.engines.int8 import CALIBRATION_IMAGES
    from preprocess.engines.select import EngineSpec, check_engine
    from preprocess.storage.retry import RetryPolicy

    options = recipe.preprocess
    specs = [BackboneSpec.of_options(of_one) for of_one in options_of_each(options).values()]
    check_engine(EngineSpec(engine=options.engine, precision=options.precision))
    storage = BeamStorage(RetryPolicy(limit_sec=options.storage_retry_sec))
    for path in (data_dir, output):
        storage.require_scheme(path)
    check_reachable([data_dir, output])
    check_output(output, storage)
    found = find_lists(recipe, data_dir=data_dir, job_dir="", storage=storage)
    for spec in specs:
        _check_weights(spec)
    specs = [complete_spec(spec, storage) for spec in specs]
    labels = read_label_dict(found[0].input_dict, storage)
    lists = []
    for entry in found:
        print(f"{entry.split}: counting the rows of {entry.input_path}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        scanned = scan_lists(
            [entry.input_path],
            labels=labels,
            unknown_labels=options.unknown_labels,
            storage=storage,
            sample_size=max(sample_size, CALIBRATION_IMAGES),
        )
        scan_sec = time.perf_counter() - started
        check_web_hosts(scanned, connections_per_host=options.connections_per_host, from_here=True)
        check_reachable(scanned.bucket_images)
        lists.append(PlannedList(split=entry.split, input_path=entry.input_path, scanned=scanned, scan_sec=scan_sec))
    plan = make_plan(
        recipe, prices, lists, specs=specs, data_dir=data_dir, sample_size=sample_size, batch_size=batch_size
    )
    write_plan(plan, output, storage)
    print("\n".join(plan_lines(plan)))
    print(f"plan: {output}")
    return EXIT_OK


def _check_weights(spec: BackboneSpec) -> None:
    from preprocess.backbones.backbone import check_weights

    try:
        check_weights(spec)
    except InputError as error:
        raise InputError(f"{error} A plan does not need them: --weights random takes the same time.") from error


if __name__ == "__main__":
    run_program(main)
