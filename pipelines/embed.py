"""From lists of labelled image URIs to records: runs the Beam pipeline that embeds every image.

    python -m pipelines.embed --input_path data/train.csv --input_dict data/dict.txt \\
        --output_path out/preproc/train

Writes the shards `out/preproc/train-*` and, beside them, `out/preproc/_train/` with the report, the ledgers
of failed and skipped rows, and the manifest that completes the set. Flags that are not listed here are
Beam's own and are passed through, `--runner` and the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import posixpath
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError, run_program
from configs.recipe import PreprocessOptions, load_recipe

if TYPE_CHECKING:
    from preprocess.finishing import Job
    from preprocess.transforms import EmbedOptions

EXIT_BUG = 1
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
    parser.add_argument("--overwrite", action="store_true", help="replace a set that lies at --output_path")
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
      InputError: something that the user gave is wrong, or nothing could be embedded.
    """
    parser = _parser()
    args, beam_flags = parser.parse_known_args(argv)
    recipe = load_recipe(args.recipe).preprocess if args.recipe else PreprocessOptions()
    options = _with_flags(recipe, args)
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"batch_size: must be at least 1. Received: {args.batch_size}")
    return _embed(args, options, beam_flags, own_flags=parser.flags)


def _embed(
    args: argparse.Namespace,
    options: PreprocessOptions,
    beam_flags: Sequence[str],
    *,
    own_flags: Sequence[str],
) -> int:
    # Imported here so that --help and wrong flags answer at once.
    from pipelines.beam_options import is_local, make_runner, parse_beam_options
    from pipelines.preflight import check_output, check_reachable, read_label_dict, scan_lists
    from preprocess.backbone import BackboneSpec, check_weights
    from preprocess.beam_storage import BeamStorage
    from preprocess.engine_choice import EngineSpec, check_engine
    from preprocess.finishing import Job
    from preprocess.transforms import EmbedLists, EmbedOptions, EngineLoader

    storage = BeamStorage()
    beam_options = parse_beam_options(beam_flags, own_flags=own_flags)
    runner = make_runner(beam_options)
    spec = BackboneSpec(architecture=options.backbone, weights=options.weights, seed=options.seed)
    check_reachable([*args.input_path, args.input_dict, args.output_path])
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
    check_output(args.output_path, overwrite=args.overwrite, storage=storage)
    job = Job(
        job_id=uuid.uuid4().hex[:12],
        output_prefix=args.output_path,
        compression=options.compression,
        labels=labels.names,
        input_paths=lists.paths,
        rows_expected=lists.rows,
        started=datetime.datetime.now(datetime.UTC),
        versions=_versions(),
    )
    embed_options = EmbedOptions(
        unknown_labels=options.unknown_labels,
        load_engine=EngineLoader(backbone=spec, engine=engine, calibration=lists.sample),
        rows_per_shard=options.rows_per_shard,
        batch_size=args.batch_size,
    )
    transform = EmbedLists(job=job, labels=labels, options=embed_options)
    if is_local(beam_options):
        return _run_here(transform, job, embed_options, runner, beam_options)
    return _submit(transform, job, runner, beam_options)


def _run_here(transform: Any, job: Job, embed_options: EmbedOptions, runner: Any, beam_options: Any) -> int:
    """Runs the job in this process, with a progress bar and a table at the end."""
    import apache_beam as beam

    from pipelines.progress_bar import show_progress
    from pipelines.summary import print_summary
    from preprocess.beam_storage import BeamStorage
    from preprocess.finishing import BOOKS_DO_NOT_BALANCE, COMPLETE

    name = posixpath.basename(job.output_prefix)
    # The stage that embeds would load it as well; loaded here, what is wrong with it is still one clear line.
    engine = embed_options.load_engine()
    print(f"{name}: embedding {job.rows_expected} rows with {engine.identity.describe()}", file=sys.stderr)
    print(f"{name}: {engine.info.engine}, {engine.info.why}", file=sys.stderr)
    pipeline = beam.Pipeline(runner=runner, options=beam_options)
    _ = pipeline | "EmbedLists" >> transform
    try:
        with show_progress(job.rows_expected, name):
            pipeline.run().wait_until_finish()
    except Exception:
        # A job that ran to its end and failed has said why in its report; all else is a bug.
        report = _own_report(job)
        if report is None:
            raise
    else:
        report = _own_report(job)
        if report is None:
            raise AssertionError(f"The job ended without a report at {job.output_prefix!r}.")
    print_summary(report, job.output_prefix, storage=BeamStorage())
    if report["status"] == BOOKS_DO_NOT_BALANCE:
        print(f"error: the books do not balance: {report['error']} Run the job again.", file=sys.stderr)
        return EXIT_BUG
    if report["status"] != COMPLETE:
        raise InputError(f"{job.output_prefix}: {report['error']} The table above says why.")
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


def _own_report(job: Job) -> dict[str, Any] | None:
    """The report that this very job wrote; None if it did not get that far."""
    from preprocess.beam_storage import BeamStorage
    from preprocess.record_set import REPORT_NAME, sidecar_path
    from preprocess.storage import read_file

    try:
        report = json.loads(read_file(BeamStorage(), sidecar_path(job.output_prefix, REPORT_NAME)))
    except (OSError, ValueError):
        return None
    return report if report.get("job_id") == job.job_id else None


if __name__ == "__main__":
    run_program(main)
