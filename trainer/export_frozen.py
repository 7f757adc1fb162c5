"""Writes a trained model as `output_graph.pb` and `output_labels.txt`, for programs that read what retrain.py wrote.

python -m trainer.export_frozen --model_dir out/training/model
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of
from configs.printed_commands import program_command
from configs.program import run_program
from configs.rules import Switch, Text
from trainer.options import Path, with_supported_paths
from trainer.storage.files import cause_of, storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFrozenOptions(Options):
    """The options of the program; the names of the last ones are those of retrain.py.

    Raises:
      InputError: a value breaks its rule.
    """

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    model_dir: str = option(
        REQUIRED,
        Path("a folder", "read"),
        help="the model that `hugs train` wrote, local or gs://",
        decides="neither",
        metavar="DIR",
    )
    output_graph: str = option(
        "output_graph.pb", Path("a file", "written"), help="the graph to write", decides="neither", metavar="FILE"
    )
    output_labels: str = option(
        "output_labels.txt",
        Path("a file", "written"),
        help="the labels to write, one a line",
        decides="neither",
        metavar="FILE",
    )
    final_tensor_name: str = option(
        "final_result", Text(), help="name of the scores in the graph", decides="neither", metavar="NAME"
    )
    overwrite: bool = option(False, Switch(can_be_unset=False), help="replace files that are there", decides="neither")


def _parse(argv: Sequence[str] | None) -> ExportFrozenOptions:
    parser = OneLineParser(
        module="trainer.export_frozen",
        description="Writes a trained model as one frozen graph and a file of labels, as TensorFlow's retrain.py did.",
        any_bytes=True,
        epilog="The graph takes pixels from 0 to 1 at `Placeholder`. It has no threshold: a program that reads it gets "
        "all scores.",
    )
    add_flags(parser, options_of(ExportFrozenOptions))
    given = given_values(parser.parse_args(argv), ExportFrozenOptions)
    return ExportFrozenOptions(**with_supported_paths(given, ExportFrozenOptions))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: an argument is wrong, there is no model that takes photos, or a file cannot be written.
    """
    options = _parse(argv)
    from trainer.export.classifier import Classifier, read_model_info

    info = read_model_info(options.model_dir)
    if options.output_graph == options.output_labels:
        raise InputError(f"--output_labels: is the same file as --output_graph, {options.output_graph!r}.")
    for name in ("output_graph", "output_labels"):
        _require_writable(name, getattr(options, name), overwrite=options.overwrite)
    classifier = Classifier(options.model_dir)

    from preprocess.backbones.tensorflow_import import without_tensorflow_noise
    from trainer.export.frozen_graph import frozen_graph, label_image_flags, label_lines, require_same_scores

    with without_tensorflow_noise():
        graph = frozen_graph(classifier.signature, info, output_name=options.final_tensor_name)
        require_same_scores(graph, classifier, output_name=options.final_tensor_name)
    for name, data in (("output_graph", graph), ("output_labels", label_lines(info.labels))):
        path = getattr(options, name)
        try:
            with storage().create(path) as stream:
                stream.write(data)
        except OSError as error:
            raise InputError(f"--{name}: cannot write {path}: {cause_of(error)}") from error
        print(f"written: {path} ({len(data):,} bytes)")
    if info.warning:
        print(f"note:    {info.warning}")
    flags = label_image_flags(info, output_name=options.final_tensor_name)
    files = ["--graph", options.output_graph, "--labels", options.output_labels]
    print(f"flags of TensorFlow's label_image: {' '.join(flags)}")
    print(f"next:    {program_command('predict', *files, *flags[1:2])} PHOTO ...")
    return EXIT_OK


def _require_writable(name: str, path: str, *, overwrite: bool) -> None:
    if not posixpath.basename(path) or os.path.isdir(path):
        raise InputError(f"--{name}: must be a file, and {path!r} is a folder.")
    try:
        exists = storage().match(path) == [path] or os.path.lexists(path)
    except OSError as error:
        raise InputError(f"--{name}: cannot look at {path}: {cause_of(error)}") from error
    if exists and not overwrite:
        raise InputError(f"--{name}: {path} is there already. Pass --overwrite to replace it, or name another file.")


if __name__ == "__main__":
    run_program(main)
