"""Prepares a network's files ahead of time, so that a container that has them neither downloads nor converts anything.

    HUGS_CACHE_DIR=/opt/hugs/cache python -m preprocess.bake --weights imagenet

It keeps the network in `HUGS_CACHE_DIR`, as the first start of a worker does; of several (`--backbone a,b`) each. It
does not measure which precision is the fastest: each machine measures that itself.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.option import add_flags, given_values, option, options_of, same_option
from configs.program import run_program
from configs.recipe import BackboneOptions
from configs.rules import Switch
from configs.several_backbones import options_of_each


@dataclasses.dataclass(frozen=True, kw_only=True)
class BakeOptions(BackboneOptions):
    """The options of the program."""

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    backbone: str = same_option(
        BackboneOptions, "backbone", help="the network, as for hugs embed, or several", metavar="NAME|PATH[,...]"
    )
    weights_only: bool = option(
        False,
        Switch(can_be_unset=False),
        help="fetch and check the weights, keep no network: for a container that trains",
        decides="neither",
    )
    gpu: bool = option(
        False,
        Switch(can_be_unset=False),
        help="keep the network also in the form for workers with GPUs",
        decides="neither",
    )


def _parse(argv: Sequence[str] | None) -> BakeOptions:
    parser = OneLineParser(module="preprocess.bake", description=(__doc__ or "").partition("\n\n")[0])
    add_flags(parser, options_of(BakeOptions))
    return BakeOptions(**given_values(parser.parse_args(argv), BakeOptions))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: the weights are not available or do not fit the network, or the network cannot be kept.
    """
    options = _parse(argv)
    for of_one in options_of_each(options).values():
        _bake(of_one)
    return EXIT_OK


def _bake(options: BakeOptions) -> None:
    # Imported here so that --help and wrong flags answer at once.
    from preprocess.backbones.backbone import BackboneSpec, complete_spec, load_keras_backbone
    from preprocess.engines.converted_networks import load_network, load_operations
    from preprocess.engines.model_cache import ModelCache, cache_folder

    spec = complete_spec(BackboneSpec.of_options(options))
    if options.weights_only:
        _, identity = load_keras_backbone(spec)
        print(f"{identity.describe()}: {identity.weights_digest}")
        return
    cache = ModelCache()
    network = load_network(spec, cache)
    # A job can run without a cache. This program exists to fill the cache, so it fails without one.
    folder = os.path.dirname(network.graph_path)
    if os.path.dirname(folder) != cache_folder().rstrip("/"):
        raise InputError(
            f"HUGS_CACHE_DIR: nothing could be kept in {cache_folder()!r}; it must be a folder that can be written, "
            f"with {os.path.getsize(network.graph_path) / 1e6:.0f} MB free."
        )
    if options.gpu:
        load_operations(network, cache)
    print(f"{network.identity.describe()}: {network.identity.weights_digest}")
    print(f"kept in {folder}")


if __name__ == "__main__":
    run_program(main)
