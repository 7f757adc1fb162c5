"""Says what embedding the lists of a recipe will take, before anything is embedded or paid for.

    python -m pipelines.plan --recipe hugs --data_dir data/

Counts the rows of each list, reads and decodes a sample of its images, runs the network on some of them, and
works out time, bytes and cost: on this machine, and on Dataflow with the recipe's workers. Writes one file,
DATA_DIR/RECIPE_plan.json, with which a run of pipelines.preproc compares what it took.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.option import add_flags, options_of
from configs.prices import load_prices
from configs.program import run_program
from configs.recipe import PreprocessOptions, Recipe, load_recipe
from pipelines.checks.embed_flags import with_flags
from pipelines.recipe_lists import check_data_dir, find_lists, plan_path

if TYPE_CHECKING:
    from configs.prices import RegionPrices
    from preprocess.backbones.backbone import BackboneSpec

_SAMPLE = 200
# Of the flags of pipelines.embed that matter most here.
_HELP = {
    "weights": "as for pipelines.embed; random ones take the same time as real ones",
    "engine": "as for pipelines.embed",
    "precision": "as for pipelines.embed",
}


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m pipelines.plan",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="All other flags of pipelines.embed that say how images are read and embedded are taken as well.",
    )
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="directory or bucket that has the lists")
    parser.add_argument(
        "--recipe", default="hugs", help="name of a recipe, or path of its YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--sample", type=int, default=_SAMPLE, metavar="N", help="images to try of each list (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="FILE", help="where the plan goes (default: DATA_DIR/RECIPE_plan.json)")
    parser.add_argument(
        "--prices", metavar="FILE", help="prices to calculate with (default: those in configs/prices.yaml)"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="images a batch (default: what suits the engine)")
    add_flags(parser, options_of(PreprocessOptions), help=_HELP)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: a flag, the recipe, the prices or a list is wrong, no image of a sample can be used, or the weights
        cannot be had.
    """
    args = _parse_args(argv)
    if args.sample < 1:
        raise InputError(f"--sample: must be at least 1. Received: {args.sample}.")
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch_size: must be at least 1. Received: {args.batch_size}.")
    recipe = load_recipe(args.recipe)
    recipe = dataclasses.replace(recipe, preprocess=with_flags(recipe.preprocess, args))
    prices = load_prices(recipe.cloud.region, args.prices)
    data_dir = check_data_dir(args.data_dir)
    output = args.output or plan_path(data_dir, recipe.name)
    return _plan(recipe, prices, data_dir=data_dir, output=output, sample_size=args.sample, batch_size=args.batch_size)


def _plan(
    recipe: Recipe, prices: RegionPrices, *, data_dir: str, output: str, sample_size: int, batch_size: int | None
) -> int:
    # Imported here so that --help and wrong flags answer at once.
    from pipelines.checks.preflight import CALIBRATION_IMAGES, check_reachable, read_label_dict, scan_lists
    from pipelines.checks.web_hosts import check_web_hosts
    from pipelines.planning.contents import DRAWN_PER_IMAGE, PlannedList, make_plan
    from pipelines.planning.file import check_output, write_plan
    from pipelines.planning.table import plan_lines
    from preprocess.backbones.backbone import BackboneSpec
    from preprocess.beam.beam_storage import BeamStorage
    from preprocess.engines.select import EngineSpec, check_engine
    from preprocess.storage.retry import RetryPolicy

    options = recipe.preprocess
    spec = BackboneSpec(architecture=options.backbone, weights=options.weights, seed=options.seed)
    check_engine(EngineSpec(engine=options.engine, precision=options.precision))
    storage = BeamStorage(RetryPolicy(limit_sec=options.storage_retry_sec))
    for path in (data_dir, output):
        storage.require_scheme(path)
    check_reachable([data_dir, output])
    check_output(output, storage)
    found = find_lists(recipe, data_dir=data_dir, job_dir="", storage=storage)
    _check_weights(spec)
    labels = read_label_dict(found[0].input_dict, storage)
    lists = []
    for entry in found:
        print(f"{entry.split}: counting the rows of {entry.input_path}", file=sys.stderr, flush=True)
        scanned = scan_lists(
            [entry.input_path],
            labels=labels,
            unknown_labels=options.unknown_labels,
            storage=storage,
            sample_size=max(DRAWN_PER_IMAGE * sample_size, CALIBRATION_IMAGES),
        )
        check_web_hosts(scanned, connections_per_host=options.connections_per_host, from_here=True)
        lists.append(PlannedList(split=entry.split, input_path=entry.input_path, scanned=scanned))
    plan = make_plan(
        recipe, prices, lists, spec=spec, data_dir=data_dir, sample_size=sample_size, batch_size=batch_size
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
        raise InputError(f"{error} Planning does without: --weights random takes the same time.") from error


if __name__ == "__main__":
    run_program(main)
