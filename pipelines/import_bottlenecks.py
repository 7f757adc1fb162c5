"""Makes record sets from the bottlenecks that TensorFlow's `retrain.py` cached, so that nothing is embedded again.

`python -m pipelines.import_bottlenecks --bottleneck_dir bottlenecks/ --output_dir out/preproc` reads files
`LABEL/IMAGE_ARCHITECTURE.txt` and writes the sets `train`, `eval` and `test`. Each file ends as a record, as a failure
with a reason or as a skip with a rule. Nothing shows which weights made the numbers, so the backbone of these sets is
unverified.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import functools
import hashlib
import importlib.metadata
import os
import posixpath
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.choices import Compression
from configs.errors import EXIT_OK, InputError, did_you_mean
from configs.list_names import SPLITS
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.printed_commands import program_command
from configs.program import run_program
from configs.rules import Number, OneOf, PathText, Switch, Text
from preprocess.lists.blocks import RowBlock, into_blocks
from preprocess.lists.bottlenecks import (
    MAX_BOTTLENECK_BYTES,
    SKIP_OTHER_ARCHITECTURE,
    BottleneckFile,
    find_bottlenecks,
    parse_bottleneck,
    retrain_split,
)
from preprocess.lists.outcomes import RowFailure, RowSkip
from preprocess.lists.rows import Row

if TYPE_CHECKING:
    import numpy as np

_ROWS_PER_SHARD = 1024
_MAX_SHOWN = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    bottleneck_dir: str = option(
        REQUIRED,
        PathText(),
        help="folder of bottlenecks, LABEL/IMAGE_ARCHITECTURE.txt, on this machine",
        decides="records",
        metavar="DIR",
    )
    output_dir: str = option(
        REQUIRED,
        PathText(),
        help="folder for the sets train, eval and test, local or gs://",
        decides="neither",
        metavar="DIR",
    )
    architecture: str | None = option(
        None,
        Text(),
        help="take only the bottlenecks of this network, as their names say it",
        decides="records",
        metavar="NAME",
        default_words="the only one that is there",
    )
    image_dir: str | None = option(
        None,
        PathText(),
        help="folder of the photos now, LABEL/IMAGE: records name them there, with their digests",
        decides="records",
        metavar="DIR",
        default_words="records name LABEL/IMAGE",
    )
    eval_percent: float = option(
        10.0, Number(at_least=0, below=100), help="share for evaluation", decides="records", metavar="P"
    )
    test_percent: float = option(
        10.0, Number(at_least=0, below=100), help="share for the final test; 0: none", decides="records", metavar="P"
    )
    split_as_retrain: str | None = option(
        None,
        Text(),
        help="split as retrain.py did: it hashed the paths of photos, so give its --image_dir, letter by letter",
        decides="records",
        metavar="DIR",
        default_words="by the file names, as ingest does",
    )
    compression: Compression = option(
        "none", OneOf.of(Compression), help="compression of the records", decides="records"
    )
    overwrite: bool = option(
        False, Switch(can_be_unset=False), help="replace sets that lie at the output", decides="neither"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_percent + self.test_percent >= 100:
            raise InputError(
                "--eval_percent and --test_percent must add up to less than 100, so that something is left to train "
                f"on. Received: {self.eval_percent:g} + {self.test_percent:g}."
            )


@dataclasses.dataclass(frozen=True, slots=True)
class _Item:
    """A file with what the first reading found: its split, its row, and the digest of its content if it was read."""

    file: BottleneckFile
    order: float
    split: str
    sha256: bytes
    outcome: RowFailure | RowSkip | None
    size: int = 0


@dataclasses.dataclass(frozen=True)
class _Importer:
    """Stands for the engine that made the embeddings: nothing is known of it but what the names say."""

    identity: Any
    info: Any


def _parse(argv: Sequence[str] | None) -> ImportOptions:
    parser = OneLineParser(
        module="pipelines.import_bottlenecks",
        description="Makes record sets from the bottlenecks that TensorFlow's retrain.py cached as text.",
        epilog="The backbone of these sets is unverified, since nothing shows which weights made the numbers. A model "
        "that is trained on them takes embeddings; with --weights FILE (for example the frozen graph that retrain.py "
        "used) it takes photos.",
    )
    add_flags(parser, options_of(ImportOptions))
    return ImportOptions(**given_values(parser.parse_args(argv), ImportOptions))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Returns:
      0 if the sets are written, or were written before.

    Raises:
      InputError: an argument is wrong, there are no bottlenecks, or the output cannot be written.
    """
    options = _parse(argv)
    from preprocess.records.backbone_identity import UNVERIFIED, BackboneIdentity
    from preprocess.storage.uris import has_scheme

    if has_scheme(options.bottleneck_dir):
        raise InputError(
            f"--bottleneck_dir: must be a folder on this machine. Received: {options.bottleneck_dir!r}. Copy it here."
        )
    files = _find(options.bottleneck_dir)
    architecture = _architecture(files, options)
    labels = _labels(files, architecture, options.bottleneck_dir)
    items = [_first_reading(file, architecture, options) for file in files]
    size = _embedding_size(items, architecture)
    if not any(item.split == "train" and item.outcome is None for item in items):
        raise InputError(
            f"--bottleneck_dir: not one bottleneck of {options.bottleneck_dir!r} falls to the training set. Lower "
            "--eval_percent or --test_percent."
        )
    identity = BackboneIdentity(
        architecture=architecture,
        weights=UNVERIFIED,
        seed=None,
        weights_digest=UNVERIFIED,
        embedding_size=size,
        image_definition=UNVERIFIED,
    )
    print(
        f"{options.bottleneck_dir}: {len(files)} files, {architecture}, embeddings of {size} numbers; nothing shows "
        "which weights made them, so the backbone is UNVERIFIED",
        file=sys.stderr,
    )
    storage = _storage(options.output_dir)
    written = []
    for split in SPLITS:
        of_split = sorted(
            (item for item in items if item.split == split), key=lambda item: (item.order, item.file.path)
        )
        # What is skipped is in the report of the training set, which must have records of its own.
        if any(item.outcome is None or isinstance(item.outcome, RowFailure) for item in of_split):
            _write_set(split, of_split, labels, identity, options, storage)
            written.append(split)
    if "eval" not in written:
        print("warning: there is no evaluation set, and training needs one. Raise --eval_percent.", file=sys.stderr)
    else:
        words = [word for name in written for word in (f"--{name}_data_paths", f"{_prefix(options, name)}*")]
        output = posixpath.join(posixpath.dirname(options.output_dir.rstrip("/")), "training")
        print(f"next:    {program_command('train', *words, '--output_path', output)}")
    return EXIT_OK


def _find(folder: str) -> list[BottleneckFile]:
    if not os.path.isdir(folder):
        raise InputError(
            f"--bottleneck_dir: there is no folder {folder!r}. Give the --bottleneck_dir of retrain.py, which holds a "
            "folder for each label."
        )
    try:
        files = list(find_bottlenecks(folder))
    except OSError as error:
        raise InputError(f"--bottleneck_dir: {folder!r} cannot be listed ({error}).") from error
    if all(file.skip is not None for file in files):
        first = f", for example {files[0].path!r}" if files else ""
        raise InputError(
            f"--bottleneck_dir: {folder!r} holds no file LABEL/IMAGE_ARCHITECTURE.txt, only {len(files)} others{first}."
        )
    return files


def _architecture(files: Sequence[BottleneckFile], options: ImportOptions) -> str:
    counts = collections.Counter(file.architecture for file in files if file.skip is None)
    listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_MAX_SHOWN))
    if options.architecture is not None:
        if options.architecture not in counts:
            raise InputError(
                f"--architecture: there are no bottlenecks of {options.architecture!r} in {options.bottleneck_dir!r}."
                f"{did_you_mean(options.architecture, counts)} There are {listed}."
            )
        return options.architecture
    if len(counts) > 1:
        raise InputError(
            f"--architecture: {options.bottleneck_dir!r} has bottlenecks of {len(counts)} networks, and a set has one: "
            f"{listed}. Name the one to import."
        )
    return next(iter(counts))


def _labels(files: Sequence[BottleneckFile], architecture: str, folder: str) -> tuple[str, ...]:
    from preprocess.lists.labels import parse_label_dict

    names = sorted({file.label for file in files if file.skip is None and file.architecture == architecture})
    for name in names:
        try:
            fits = len(name.encode().splitlines()) == 1 and name == name.strip()
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise InputError(
                "--bottleneck_dir: a label is one line of UTF-8 without blanks at its ends. Rename the folder "
                f"{name!r}."
            )
    return parse_label_dict("\n".join(names).encode(), where=folder).names


def _first_reading(file: BottleneckFile, architecture: str, options: ImportOptions) -> _Item:
    """Reads a file once: for its digest, which says which job it is, and for the number of its values."""
    from pipelines.splits.assign import name_share, split_of

    skip = file.skip
    if skip is None and file.architecture != architecture:
        skip = RowSkip(SKIP_OTHER_ARCHITECTURE, f"{file.path}: is of {file.architecture}, not of {architecture}")
    if skip is not None:
        return _Item(file, 0.0, "train", b"", skip)
    order = name_share(os.fsencode(file.image).decode("utf-8", "backslashreplace"))
    percents = {"eval_percent": options.eval_percent, "test_percent": options.test_percent}
    if options.split_as_retrain is None:
        split = split_of(order, **percents)
    else:
        split = retrain_split(os.path.join(options.split_as_retrain, file.label, file.image), **percents)
    try:
        data, embedding = _read(file, options)
    except RowFailure as failure:
        return _Item(file, order, split, b"", failure)
    return _Item(file, order, split, hashlib.sha256(data).digest(), None, len(embedding))


def _read(file: BottleneckFile, options: ImportOptions) -> tuple[bytes, np.ndarray]:
    """The content of a file and its embedding. Raises RowFailure, or InputError for a fault of the machine."""
    data = _read_bytes(os.path.join(options.bottleneck_dir, file.path), MAX_BOTTLENECK_BYTES)
    return data, parse_bottleneck(data, where=file.path)


def _read_bytes(path: str, max_bytes: int) -> bytes:
    from preprocess.images.read import read_image_bytes
    from preprocess.machine.machine_faults import MachineFault
    from preprocess.storage.router import UriStorage

    try:
        return read_image_bytes(path, read_remote=UriStorage().read, max_bytes=max_bytes)
    except MachineFault as fault:
        raise InputError(f"{path} cannot be read ({fault}). Give the same command again.") from fault


def _embedding_size(items: Sequence[_Item], architecture: str) -> int:
    """The size of an embedding: that of the network if it is known, else the most frequent one."""
    from preprocess.backbones.architectures import ARCHITECTURES

    sizes = collections.Counter(item.size for item in items if item.outcome is None)
    if not sizes:
        failure = next(item.outcome for item in items if isinstance(item.outcome, RowFailure))
        raise InputError(f"--bottleneck_dir: no bottleneck of {architecture} can be read: {failure.message}.")
    most = max(sizes, key=lambda size: (sizes[size], size))
    known = ARCHITECTURES.get(architecture)
    return known.embedding_size if known is not None and known.embedding_size in sizes else most


def _storage(output_dir: str) -> Any:
    from preprocess.storage.base import LocalStorage
    from preprocess.storage.router import UriStorage, refuse_web
    from preprocess.storage.uris import has_scheme

    if not has_scheme(output_dir):
        return LocalStorage()
    refuse_web(output_dir)
    return UriStorage()


def _prefix(options: ImportOptions, split: str) -> str:
    return posixpath.join(options.output_dir, split)


def _definition(
    items: Sequence[_Item], labels: tuple[str, ...], identity: Any, options: ImportOptions
) -> dict[str, Any]:
    content = hashlib.sha256()
    for item in items:
        content.update(f"{item.file.path}\0".encode("utf-8", "surrogateescape") + item.sha256)
    return {
        "bottlenecks": content.hexdigest(),
        "input_dict": list(labels),
        "network": identity.network,
        "image_dir": options.image_dir,
        "compression": options.compression,
        "rows_per_shard": _ROWS_PER_SHARD,
    }


def _write_set(
    split: str,
    items: Sequence[_Item],
    labels: tuple[str, ...],
    identity: Any,
    options: ImportOptions,
    storage: Any,
) -> None:
    """Writes one set, with report and manifest as `pipelines.embed` writes them, or says that it is there."""
    from pipelines.checks.output_claim import Claim, Output, check_prefix, locked
    from pipelines.embedding.summary import print_summary
    from preprocess.engines.base import EngineInfo
    from preprocess.jobs.commit import JobFailed, finish_record_set
    from preprocess.jobs.job import Job
    from preprocess.jobs.journal import JournalUnusable, commit_journal, discard_journal, tidy
    from preprocess.jobs.report import COMPLETE
    from preprocess.locks.output_lock import fenced
    from preprocess.records.record_set import sidecar_dir

    prefix = _prefix(options, split)
    check_prefix(prefix)
    definition = _definition(items, labels, identity, options)
    job = Job(
        definition=definition,
        run_id=uuid.uuid4().hex[:12],
        output_prefix=prefix,
        compression=options.compression,
        labels=labels,
        input_paths=(options.bottleneck_dir,),
        input_sha256=(definition["bottlenecks"],),
        rows_expected=len(items),
        started=datetime.datetime.now(datetime.UTC),
        versions={"python": sys.version.split()[0], "numpy": importlib.metadata.version("numpy")},
        against=() if split == "train" else (_prefix(options, "train"),),
    )
    info = EngineInfo(
        engine="retrain.py",
        precision="float32",
        device="unknown",
        fidelity=None,
        why="the embeddings were read from bottlenecks",
    )
    with locked(job, storage) as lock:
        storage = fenced(storage, lock)
        output = Output(job, storage)
        claim = output.claim(overwrite=options.overwrite)
        if claim is Claim.DONE:
            print(f"{prefix}: this very job has finished this set of records; nothing to do.")
            return
        try:
            report = None
            if claim is Claim.JOURNALED:
                try:
                    report = commit_journal(job, storage)
                except JournalUnusable:
                    discard_journal(job, storage)
                    output = Output(job, storage)
                    claim = output.claim(overwrite=options.overwrite)
            if report is None:
                storage.delete_tree(job.parts_dir)  # Reading text again is faster than finding what can be kept.
                output.prepare(claim=Claim.NEW, overwrite=options.overwrite)
                blocks = into_blocks(
                    _rows(items, labels, identity.embedding_size, options),
                    list_index=0,
                    list_path=options.bottleneck_dir,
                    rows_per_block=_ROWS_PER_SHARD,
                )
                by_line = dict(enumerate(items, start=1))
                write = functools.partial(_write_block, by_line, _Importer(identity, info), job, options, storage)
                report = finish_record_set([write(block) for block in blocks], job=job, storage=storage)
        except (OSError, JobFailed) as error:
            raise InputError(
                f"--output_dir: {prefix} cannot be written ({error}). Give the same command again."
            ) from error
        complete = report["status"] == COMPLETE
        print_summary(report, prefix, sidecars=sidecar_dir(prefix) if complete else job.parts_dir, storage=storage)
        if not complete:
            raise InputError(f"{prefix}: {report['error']} The table above says why. Correct what is wrong.")
        tidy(job, storage)


def _rows(items: Sequence[_Item], labels: tuple[str, ...], size: int, options: ImportOptions) -> Iterator[Row]:
    ids = {name: position for position, name in enumerate(labels)}
    for line, item in enumerate(items, start=1):
        file, outcome = item.file, item.outcome
        if outcome is None and item.size != size:
            message = f"{file.path}: has {item.size} numbers, and an embedding of {size} is wanted"
            outcome = RowFailure("parse", "wrong_size", message)
        uri = f"{file.label}/{file.image}" if file.image else file.path
        if file.image and options.image_dir is not None:
            uri = posixpath.join(options.image_dir, uri)
        if outcome is None and not _is_utf8(uri):
            outcome = RowFailure("parse", "bad_uri", f"{file.path!r}: its name is not UTF-8")
        if not _is_utf8(uri):
            uri = os.fsencode(uri).decode("utf-8", "backslashreplace")
        names = (file.label,) if file.label in ids else ()
        yield Row(uri, names, tuple(ids[name] for name in names), line, outcome)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _write_block(
    by_line: Mapping[int, _Item],
    importer: Any,
    job: Any,
    options: ImportOptions,
    storage: Any,
    block: RowBlock,
) -> Any:
    from preprocess.jobs.block_results import IMPORTED
    from preprocess.jobs.block_writer import BlockWriter

    writer = BlockWriter(block, storage=storage, parts_dir=job.parts_dir, compression=job.compression, engine=importer)
    try:
        for row in block.rows:
            outcome = row.outcome
            if outcome is None:
                item = by_line[row.line]
                try:
                    data, embedding = _read(item.file, options)
                    if hashlib.sha256(data).digest() != item.sha256:
                        raise RowFailure("read", "changed", f"{item.file.path}: was changed while it was imported")
                    writer.write_record(
                        row,
                        embedding,
                        image_sha256=(image := _image_digest(row.uri, options)),
                        # Equal numbers are those of one image.
                        content_sha256=image or item.sha256,
                        source=IMPORTED,
                    )
                    continue
                except RowFailure as failure:
                    outcome = failure
            writer.write_outcome(row, outcome)
    except BaseException as error:
        writer.abandon(error)
        raise
    return writer.finish()


def _image_digest(uri: str, options: ImportOptions) -> bytes:
    """The SHA-256 of a photo, 32 bytes; empty if nobody said where the photos are, or if it cannot be read there."""
    from preprocess.images.read import DEFAULT_MAX_IMAGE_BYTES

    if options.image_dir is None:
        return b""
    try:
        return hashlib.sha256(_read_bytes(uri, DEFAULT_MAX_IMAGE_BYTES)).digest()
    except RowFailure:
        return b""


if __name__ == "__main__":
    run_program(main)
