"""Makes record sets from the bottlenecks that TensorFlow's `retrain.py` cached, so that nothing is embedded again.

`python -m pipelines.import_bottlenecks --bottleneck_dir bottlenecks/ --output_dir out/preproc` reads files
`LABEL/IMAGE_ARCHITECTURE.txt` and writes the sets `train`, `eval` and `test`. Each file ends as a record, as a failure
with a reason or as a skip with a rule. Nothing shows which weights made the numbers, so the backbone of these sets is
unverified.
"""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Sequence
from typing import Any

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.list_names import SPLITS
from configs.option import add_flags, given_values, options_of
from configs.printed_commands import program_command
from configs.program import run_program
from pipelines.bottlenecks.options import ImportOptions
from preprocess.lists.outcomes import RowFailure


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
    from pipelines.bottlenecks.sets import set_prefix, write_set  # here: --help does not need NumPy
    from pipelines.bottlenecks.survey import choose_architecture, embedding_size, find_files, find_labels, first_reading
    from preprocess.records.backbone_identity import UNVERIFIED, BackboneIdentity
    from preprocess.storage.uris import has_scheme

    if has_scheme(options.bottleneck_dir):
        raise InputError(
            f"--bottleneck_dir: must be a folder on this machine. Received: {options.bottleneck_dir!r}. Copy it here."
        )
    files = find_files(options.bottleneck_dir)
    architecture = choose_architecture(files, options)
    labels = find_labels(files, architecture, options.bottleneck_dir)
    items = [first_reading(file, architecture, options) for file in files]
    size = embedding_size(items, architecture)
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
            write_set(split, of_split, labels, identity, options, storage)
            written.append(split)
    if "eval" not in written:
        print("warning: there is no evaluation set, and training needs one. Raise --eval_percent.", file=sys.stderr)
    else:
        words = [word for name in written for word in (f"--{name}_data_paths", set_prefix(options, name))]
        output = posixpath.join(posixpath.dirname(options.output_dir.rstrip("/")), "training")
        print(f"next:    {program_command('train', *words, '--output_path', output)}")
    return EXIT_OK


def _storage(output_dir: str) -> Any:
    from preprocess.storage.base import LocalStorage
    from preprocess.storage.router import UriStorage, refuse_web
    from preprocess.storage.uris import has_scheme

    if not has_scheme(output_dir):
        return LocalStorage()
    refuse_web(output_dir)
    return UriStorage()


if __name__ == "__main__":
    run_program(main)
