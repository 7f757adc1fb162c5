"""From lists of labelled image URIs to records: runs the Beam pipeline that embeds every image.

    python -m pipelines.embed --input_path data/train.csv --input_dict data/dict.txt \\
        --output_path out/preproc/train

Writes the shards `out/preproc/train-*` and, beside them, `out/preproc/_train/` with the report, the ledgers
of failed and skipped rows, and the manifest that completes the set. The same command again, after whatever
stopped it, goes on where it was stopped. Flags that are not listed here are Beam's own and are passed through,
`--runner` and the rest. With `--runner DataflowRunner` the job is handed over and goes on by itself; the recipe says
on which machines.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError, run_program
from configs.recipe import PreprocessOptions, Recipe, load_recipe

if TYPE_CHECKING:
    from pipelines.preflight import ScannedLists
    from pipelines.prepared_job import PreparedJob

_CALIBRATION_IMAGES = 300


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pipelines.embed",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="All other flags are passed to Apache Beam, for example --runner DataflowRunner.",
    )
    parser.add_argument(
        "--input_path",
        action="append",
        required=True,
        metavar="LIST",
        help="CSV list of rows image_uri,label[,label...], or a glob of lists; may be repeated. Relative image URIs "
        "are relative to the list that names them",
    )
    parser.add_argument("--input_dict", required=True, metavar="FILE", help="dict.txt: the labels, one a line")
    parser.add_argument(
        "--output_path",
        required=True,
        metavar="PREFIX",
        help="the set to write, for example out/preproc/train",
    )
    parser.add_argument("--recipe", metavar="NAME|FILE", help="recipe that gives the defaults of the flags below")
    parser.add_argument("--backbone", help="network that makes the embeddings (default: inception_v3)")
    parser.add_argument(
        "--weights",
        metavar="imagenet|random|PATH",
        help="imagenet (default), random (for trying things out; see --seed), or a weights file that Keras can read",
    )
    parser.add_argument("--seed", type=int, help="seed of random weights (default: 0)")
    parser.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "openvino"),
        help="what runs the network (default: auto, the fastest that is installed)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16", "int8"),
        help="of the network's arithmetic: auto (default) takes bfloat16 where it is faster and agrees with float32; "
        "int8 is calibrated on a sample of the list",
    )
    parser.add_argument("--compression", choices=("none", "gzip"), help="of the records (default: none)")
    parser.add_argument(
        "--unknown_labels",
        choices=("fail", "skip", "unlabeled"),
        help="a label that dict.txt lacks: stop before the start (default), skip the row, or drop the label",
    )
    parser.add_argument("--rows_per_shard", type=int, metavar="N", help="rows a shard (default: 1024)")
    parser.add_argument("--batch_size", type=int, metavar="N", help="images a batch (default: what suits the engine)")
    parser.add_argument(
        "--max_failed_percent",
        type=float,
        metavar="PERCENT",
        help="the job fails if a larger share of the images does (default: 10)",
    )
    parser.add_argument("--max_image_bytes", type=int, metavar="N", help="a larger image file fails (default: 256 MiB)")
    parser.add_argument(
        "--max_image_pixels",
        type=int,
        metavar="N",
        help="an image of more pixels, by its header, fails (default: 120 million)",
    )
    parser.add_argument(
        "--image_deadline_sec",
        type=float,
        metavar="SEC",
        help="an image that takes longer to read, or to decode, fails (default: 60)",
    )
    parser.add_argument(
        "--storage_retry_sec",
        type=float,
        metavar="SEC",
        help="how long faults of remote storage that may pass are tried again (default: 120)",
    )
    parser.add_argument(
        "--embedding_cache",
        metavar="FOLDER",
        help="local or remote folder of embeddings by the content of the image file: what it holds is not computed "
        "again, whatever the list or the file is called; it grows by what is computed",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="PREFIX",
        help="a finished set, for example that of the training list: the report counts the images that are in both; "
        "may be repeated",
    )
    parser.add_argument(
        "--retry_failures",
        nargs="?",
        const="all",
        metavar="REASON[,REASON]",
        help="of a finished set: try the rows of its ledger again, all or those of some reasons, and complete the set",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what lies at --output_path, once the new set is ready"
    )
    parser.add_argument(
        "--prediction",
        metavar="FILE",
        help="a plan that pipelines.plan made of these lists: the report compares it with what the run took",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="for a job on Dataflow, and end as a run on this machine does; all other runners are waited for anyway",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check what can be checked without writing, print the command with all of Beam's flags, start nothing",
    )
    return parser


def _with_flags(defaults: PreprocessOptions, args: argparse.Namespace) -> PreprocessOptions:
    """The recipe's options, with what the command line gives in their stead."""
    names = (field.name for field in dataclasses.fields(defaults))
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return dataclasses.replace(defaults, **given)


def _versions() -> dict[str, str]:
    names = ("apache-beam", "tensorflow", "keras", "pillow", "numpy")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Returns:
      0; 1 if the books do not balance.

    Raises:
      InputError: something that the user gave is wrong, nothing could be embedded, or too many images failed.
    """
    prepared = prepare(argv)
    if prepared.dry_run:
        print(prepared.describe())
        return EXIT_OK
    started = prepared.start()
    if isinstance(started, int):
        return started
    return started.wait() if prepared.wait else EXIT_OK


def prepare(argv: Sequence[str] | None = None) -> PreparedJob:
    """Reads the flags and checks everything that can be checked before the job starts.

    Raises:
      InputError: something that the user gave is wrong.
    """
    parser = _parser()
    args, beam_flags = parser.parse_known_args(argv)
    recipe = load_recipe(args.recipe) if args.recipe else Recipe(name="none")
    options = _with_flags(recipe.preprocess, args)
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"batch_size: must be at least 1. Received: {args.batch_size}")
    if args.retry_failures is not None and args.overwrite:
        raise InputError("retry_failures: completes the set that is there, which --overwrite would replace. Pass one.")
    given = list(sys.argv[1:] if argv is None else argv)
    own_words = _without(given, beam_flags)
    return _prepare(args, recipe, options, beam_flags, own_words=own_words, own_flags=parser.flags)


def _without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words of a command line that the parser took, in their order; it left the others in theirs."""
    left = iter(others)
    other = next(left, None)
    taken = []
    for word in words:
        if word == other:
            other = next(left, None)
        else:
            taken.append(word)
    return taken


def _definition(options: PreprocessOptions, lists: ScannedLists, labels: Sequence[str]) -> dict[str, Any]:
    """What makes the records what they are."""
    from preprocess.image import IMAGE_DEFINITION
    from preprocess.rows import has_scheme

    paths = [path if has_scheme(path) else os.path.abspath(path) for path in lists.paths]
    return {
        "input_path": [list(pair) for pair in zip(paths, lists.sha256, strict=True)],
        "input_dict": hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest(),
        "image_definition": IMAGE_DEFINITION,
        **{
            name: getattr(options, name)
            for name in (
                "backbone",
                "weights",
                "seed",
                "engine",
                "precision",
                "compression",
                "unknown_labels",
                "rows_per_shard",
            )
        },
    }


def _retry(reasons: str | None) -> Any:
    from preprocess.job import Retry

    if reasons is None:
        return None
    names = frozenset(filter(None, (name.strip() for name in reasons.split(","))))
    return Retry(reasons=None if names == {"all"} else names, of_finished_set=True)


def _prediction(
    args: argparse.Namespace, options: PreprocessOptions, lists: ScannedLists, beam_options: Any, storage: Any
) -> Any:
    from pipelines.plan_file import find_prediction, planned_options, runs_on

    if args.prediction is None:
        return None
    return find_prediction(
        args.prediction,
        lists=lists,
        options=planned_options(options, args.batch_size),
        machines=runs_on(beam_options),
        storage=storage,
    )


def _prepare(
    args: argparse.Namespace,
    recipe: Recipe,
    options: PreprocessOptions,
    beam_flags: Sequence[str],
    *,
    own_words: Sequence[str],
    own_flags: Sequence[str],
) -> PreparedJob:
    # Imported here so that --help and wrong flags answer at once.
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import WorkerOptions

    from pipelines.beam_options import is_dataflow, is_local, make_runner, parse_beam_options
    from pipelines.claim import Output, check_prefix
    from pipelines.dataflow import complete_flags, pins_versions, staging_folder, worker_requirements
    from pipelines.preflight import check_against, check_reachable, check_remote, read_label_dict, scan_lists
    from pipelines.prepared_job import PreparedJob
    from preprocess import embedding_cache
    from preprocess.backbone import BackboneSpec, check_weights
    from preprocess.beam_storage import BeamStorage
    from preprocess.engine_choice import EngineSpec, check_engine
    from preprocess.image_source import ImageSource
    from preprocess.job import Job
    from preprocess.retrying import RetryPolicy
    from preprocess.transforms import EmbedOptions, EngineLoader

    beam_options = parse_beam_options(beam_flags, own_flags=own_flags)
    caches = [args.embedding_cache] if args.embedding_cache else []
    on_dataflow = is_dataflow(beam_options)
    if on_dataflow:
        check_remote({"input_path": args.input_path, "embedding_cache": caches, "against": args.against})
        beam_flags = complete_flags(recipe, beam_flags, output_prefix=args.output_path)
        beam_options = parse_beam_options(beam_flags, own_flags=own_flags)
    runner = make_runner(beam_options)
    # What reads the lists takes the credentials that the flags name, as the pipeline does.
    FileSystems.set_options(beam_options)
    spec = BackboneSpec(architecture=options.backbone, weights=options.weights, seed=options.seed)
    engine = EngineSpec(engine=options.engine, precision=options.precision)
    pins = on_dataflow and pins_versions(beam_flags, None)
    if is_local(beam_options) or pins:
        # Workers have what this machine has; all others may have more.
        check_engine(engine)
    if pins and beam_options.view_as(WorkerOptions).use_public_ips is False:
        print(
            "note: workers without public addresses install packages only if Cloud NAT lets them; a dataflow.image "
            "has all that they need",
            file=sys.stderr,
        )
    if on_dataflow:
        from pipelines.dataflow_service import check_credentials

        check_credentials(beam_options)
    plans = [args.prediction] if args.prediction else []
    check_reachable([*args.input_path, args.input_dict, args.output_path, *caches, *args.against, *plans])
    retry = RetryPolicy(limit_sec=options.storage_retry_sec)
    storage = BeamStorage(retry)
    if not is_local(beam_options):
        from pipelines.submission import check_options

        check_options(runner, beam_options)
    if on_dataflow:
        from pipelines.dataflow_service import check_service, check_writable

        check_service(beam_options)
        if not args.dry_run:
            check_writable(beam_options, storage)
    labels = read_label_dict(args.input_dict, storage)
    lists = scan_lists(
        args.input_path,
        labels=labels,
        unknown_labels=options.unknown_labels,
        storage=storage,
        sample_size=_CALIBRATION_IMAGES if options.precision == "int8" else 0,
        remote_images_only=on_dataflow,
    )
    in_image = recipe.dataflow.weights_in_image and not is_local(beam_options)
    if not in_image:
        check_weights(spec)
    stages_weights = args.output_path.startswith("gs://") and not is_local(beam_options) and not in_image
    check_prefix(args.output_path, create=not args.dry_run)
    check_against(args.against, storage=storage)
    for folder in caches if not args.dry_run else ():
        embedding_cache.check(folder, storage)  # Writes to it.
    job = Job(
        definition=_definition(options, lists, labels.names),
        run_id=uuid.uuid4().hex[:12],
        output_prefix=args.output_path,
        compression=options.compression,
        labels=labels.names,
        input_paths=lists.paths,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions=_versions(),
        max_failed_percent=options.max_failed_percent,
        against=tuple(args.against),
        embedding_cache=args.embedding_cache,
        retry=_retry(args.retry_failures),
        prediction=_prediction(args, options, lists, beam_options, storage),
    )
    if on_dataflow or args.dry_run:
        # What is wrong with one of several outputs is to be found before the first job is handed over.
        Output(job, storage).claim(overwrite=args.overwrite)
    images = ImageSource(
        max_bytes=options.max_image_bytes,
        max_pixels=options.max_image_pixels,
        deadline_sec=options.image_deadline_sec,
        retry=retry,
    )
    return PreparedJob(
        job=job,
        labels=labels,
        options=EmbedOptions(
            unknown_labels=options.unknown_labels,
            load_engine=EngineLoader(backbone=spec, engine=engine, calibration=lists.sample, images=images),
            images=images,
            rows_per_shard=options.rows_per_shard,
            batch_size=args.batch_size,
        ),
        runner=runner,
        beam_options=beam_options,
        storage=storage,
        flags=(*(word for word in own_words if word != "--dry_run"), *beam_flags),
        weights_folder=f"{staging_folder(args.output_path)}/weights" if stages_weights and not spec.is_random else None,
        requirements=tuple(worker_requirements(int8=options.precision == "int8")) if pins else (),
        overwrite=args.overwrite,
        wait=args.wait,
        dry_run=args.dry_run,
    )


if __name__ == "__main__":
    run_program(main)
