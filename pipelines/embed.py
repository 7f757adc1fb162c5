"""From lists of labelled image URIs to records: runs the Beam pipeline that embeds every image.

    python -m pipelines.embed --input_path data/train.csv --input_dict data/dict.txt \\
        --output_path out/preproc/train

Writes the shards `out/preproc/train-*` and, beside them, `out/preproc/_train/` with the report, the ledgers
of failed and skipped rows, and the manifest that completes the set. The same command again, after whatever
stopped it, goes on where it was stopped. Flags that are not listed here are Beam's own and are passed through,
`--runner` and the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import os
import posixpath
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError, run_program
from configs.recipe import PreprocessOptions, load_recipe

if TYPE_CHECKING:
    from pipelines.preflight import ScannedLists
    from preprocess.job import Job

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
    parser = _parser()
    args, beam_flags = parser.parse_known_args(argv)
    recipe = load_recipe(args.recipe).preprocess if args.recipe else PreprocessOptions()
    options = _with_flags(recipe, args)
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"batch_size: must be at least 1. Received: {args.batch_size}")
    if args.retry_failures is not None and args.overwrite:
        raise InputError("retry_failures: completes the set that is there, which --overwrite would replace. Pass one.")
    return _embed(args, options, beam_flags, own_flags=parser.flags)


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


def _embed(
    args: argparse.Namespace,
    options: PreprocessOptions,
    beam_flags: Sequence[str],
    *,
    own_flags: Sequence[str],
) -> int:
    # Imported here so that --help and wrong flags answer at once.
    from pipelines.beam_options import is_local, make_runner, parse_beam_options
    from pipelines.claim import Claim, Output, check_prefix, locked
    from pipelines.preflight import check_against, check_reachable, read_label_dict, scan_lists
    from preprocess import embedding_cache
    from preprocess.backbone import BackboneSpec, check_weights
    from preprocess.beam_storage import BeamStorage
    from preprocess.engine_choice import EngineSpec, check_engine
    from preprocess.image_source import ImageSource
    from preprocess.job import Job
    from preprocess.retrying import RetryPolicy
    from preprocess.transforms import EmbedLists, EmbedOptions, EngineLoader

    beam_options = parse_beam_options(beam_flags, own_flags=own_flags)
    runner = make_runner(beam_options)
    spec = BackboneSpec(architecture=options.backbone, weights=options.weights, seed=options.seed)
    caches = [args.embedding_cache] if args.embedding_cache else []
    check_reachable([*args.input_path, args.input_dict, args.output_path, *caches, *args.against])
    retry = RetryPolicy(limit_sec=options.storage_retry_sec)
    storage = BeamStorage(retry)
    engine = EngineSpec(engine=options.engine, precision=options.precision)
    check_engine(engine)
    labels = read_label_dict(args.input_dict, storage)
    lists = scan_lists(
        args.input_path,
        labels=labels,
        unknown_labels=options.unknown_labels,
        storage=storage,
        sample_size=_CALIBRATION_IMAGES if options.precision == "int8" else 0,
    )
    check_weights(spec)
    check_prefix(args.output_path)
    check_against(args.against, storage=storage)
    for folder in caches:
        embedding_cache.check(folder, storage)
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
    )
    images = ImageSource(
        max_bytes=options.max_image_bytes,
        max_pixels=options.max_image_pixels,
        deadline_sec=options.image_deadline_sec,
        retry=retry,
    )
    embed_options = EmbedOptions(
        unknown_labels=options.unknown_labels,
        load_engine=EngineLoader(backbone=spec, engine=engine, calibration=lists.sample, images=images),
        images=images,
        rows_per_shard=options.rows_per_shard,
        batch_size=args.batch_size,
    )
    with locked(job.output_prefix):
        output = Output(job, storage)
        claim = output.claim(overwrite=args.overwrite)
        if claim is Claim.DONE:
            return _say_done(job)
        if claim is Claim.PLANNED:
            from pipelines.local_run import finish_here

            return finish_here(job, storage=storage)
        if not is_local(beam_options):
            job = output.prepare()
            return _submit(EmbedLists(job=job, labels=labels, options=embed_options), job, runner, beam_options)
        from pipelines.local_run import run_here

        # The stage that embeds would load it as well; loaded here, what is wrong with it is still one clear line.
        loaded = embed_options.load_engine()
        name = posixpath.basename(job.output_prefix)
        job = output.prepare()
        going_on = ", going on where an earlier run was stopped" if claim is Claim.UNFINISHED else ""
        print(
            f"{name}: embedding {job.rows_expected} rows with {loaded.identity.describe()}{going_on}", file=sys.stderr
        )
        print(f"{name}: {loaded.info.engine}, {loaded.info.why}", file=sys.stderr)
        transform = EmbedLists(job=job, labels=labels, options=embed_options)
        return run_here(job, transform, runner=runner, beam_options=beam_options, storage=storage)


def _say_done(job: Job) -> int:
    """There is nothing left to do."""
    what = "no row in its ledger to try again" if job.retry is not None else "nothing to do"
    print(f"{job.output_prefix}: this very job has finished this set of records; {what}.")
    return EXIT_OK


def _submit(transform: Any, job: Job, runner: Any, beam_options: Any) -> int:
    """Hands the job to another runner and says where its report will be."""
    import apache_beam as beam

    from preprocess.record_set import REPORT_NAME, sidecar_path

    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    _ = pipeline | "EmbedLists" >> transform
    result = pipeline.run()
    job_id = getattr(result, "job_id", None)
    print(f"Submitted {job.rows_expected} rows{f' as job {job_id()}' if callable(job_id) else ''}.")
    print(f"When the job is done, its report is at {sidecar_path(job.output_prefix, REPORT_NAME)}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
