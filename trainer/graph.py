"""Shows a network: prints its layers, and writes its graph and that of the head for TensorBoard.

python -m trainer.graph --backbone efficientnet_lite0
python -m trainer.graph --model_dir out/training/model --log_dir logs
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_OK, InputError
from configs.option import add_flags, given_values, option, options_of
from configs.printed_commands import tool_command
from configs.program import run_program
from configs.recipe import BackboneOptions
from configs.rules import Switch
from trainer.options import Path, with_supported_paths

if TYPE_CHECKING:
    from preprocess.backbones.layers import Layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphOptions(BackboneOptions):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    model_dir: str | None = option(
        None,
        Path("a folder", "read"),
        help="show a model that `hugs train` wrote, network and head, in place of a --backbone",
        decides="neither",
        metavar="DIR",
    )
    log_dir: str | None = option(
        None,
        Path("a folder", "written"),
        help="folder for the graphs, which TensorBoard shows",
        decides="neither",
        metavar="DIR",
        default_words="none",
    )
    json: bool = option(
        False, Switch(can_be_unset=False), help="print one JSON object a layer, one a line", decides="neither"
    )


def _parse(argv: Sequence[str] | None) -> GraphOptions:
    parser = OneLineParser(module="trainer.graph", description=(__doc__ or "").partition("\n\n")[0])
    add_flags(parser, options_of(GraphOptions))
    given = given_values(parser.parse_args(argv), GraphOptions)
    of_backbone = sorted(set(given) & set(options_of(BackboneOptions)))
    if "model_dir" in given and of_backbone:
        raise InputError(f"--{of_backbone[0]}: a model in --model_dir has its own network. Pass one of the two.")
    return GraphOptions(**with_supported_paths(given, GraphOptions))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: an argument is wrong, or there is no such network or model.
    """
    options = _parse(argv)
    from preprocess.backbones.tensorflow_import import without_tensorflow_noise
    from trainer.storage.working_folder import working_folder

    if options.log_dir is not None:
        working_folder(options.log_dir, flag="log_dir").require_writable()
    with without_tensorflow_noise():
        parts = _of_model(options.model_dir) if options.model_dir is not None else _of_backbone(options)
    for part, (layers, _) in parts.items():
        if options.json:
            for layer in layers:
                print(json.dumps({"part": part, **dataclasses.asdict(layer)}, ensure_ascii=False))
        else:
            _print_table(part, layers)
    if options.log_dir is not None:
        from trainer.training.event_log import EventLog

        for part, (_, graph) in parts.items():
            log = EventLog(posixpath.join(options.log_dir, part))
            log.write_graph(graph)
            log.close()
        if not options.json:
            print(f"next:    {tool_command('tensorboard', '--logdir', options.log_dir)}  (its page Graphs)")
    require_printed()  # The program exists to print layers.
    return EXIT_OK


_Parts = dict[str, tuple[list["Layer"], Any]]


def _of_backbone(options: GraphOptions) -> _Parts:
    """The layers and the graph of a backbone, by the name of the part."""
    from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
    from preprocess.backbones.layers import graph_of, layers_of

    model, _ = load_keras_backbone(BackboneSpec.of_options(options))
    return {"network": (layers_of(model), graph_of(model))}


def _of_model(model_dir: str) -> _Parts:
    """Those of an exported model: from pixels to scores, if it takes images, and the head alone."""
    from preprocess.backbones.layers import layers_of_graph, without_large_constants
    from preprocess.backbones.tensorflow_import import import_tensorflow
    from trainer.export.classifier import load_saved_model, read_model_info
    from trainer.export.frozen_graph import frozen_graph, frozen_head

    info = read_model_info(model_dir)
    tf = import_tensorflow()
    model = load_saved_model(model_dir)
    graphs = {}
    if info.takes_images:
        graphs["network"] = tf.compat.v1.GraphDef.FromString(frozen_graph(model.signatures["serving_default"], info))
    graphs["head"] = frozen_head(model.signatures["embeddings"])
    return {part: (layers_of_graph(graph), without_large_constants(graph)) for part, graph in graphs.items()}


def _print_table(part: str, layers: Sequence[Layer]) -> None:
    rows = [("layer", "op", "output", "parameters")]
    rows += [(layer.name, layer.op, layer.shape_words, f"{layer.parameters:,}") for layer in layers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{part}:")
    for name, op, shape, parameters in rows:
        line = (name.ljust(widths[0]), op.ljust(widths[1]), shape.ljust(widths[2]), parameters.rjust(widths[3]))
        print(f"  {'  '.join(line)}")
    print(f"  {len(layers)} layers, {sum(layer.parameters for layer in layers):,} parameters\n")


if __name__ == "__main__":
    run_program(main)
