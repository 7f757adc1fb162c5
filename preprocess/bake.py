"""Prepares a network's files ahead of time, so that a container that has them neither downloads nor converts anything.

    HUGS_CACHE_DIR=/opt/hugs/cache python -m preprocess.bake --weights imagenet

Keeps the network in `HUGS_CACHE_DIR`, as the first start of a worker would. Which precision is fastest is measured by
each machine for itself and is not part of it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.errors import EXIT_OK, InputError
from configs.program import run_program


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m preprocess.bake", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--backbone", default="inception_v3", help="network to prepare (default: inception_v3)")
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="imagenet|random|PATH",
        help="its weights (default: imagenet, which are fetched if they are not on this machine)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (default: 0)")
    parser.add_argument(
        "--weights_only",
        action="store_true",
        help="fetch and check the weights, keep no network: for a container that trains",
    )
    parser.add_argument("--gpu", action="store_true", help="keep the network also in the form for workers with GPUs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program.

    Raises:
      InputError: the weights cannot be had or do not fit, or the network cannot be kept.
    """
    args: argparse.Namespace = _parser().parse_args(argv)
    # Imported here so that --help and wrong flags answer at once.
    from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
    from preprocess.engines.converted_networks import load_network, load_operations
    from preprocess.engines.model_cache import ModelCache, cache_folder

    spec = BackboneSpec(architecture=args.backbone, weights=args.weights, seed=args.seed)
    if args.weights_only:
        _, identity = load_keras_backbone(spec)
        print(f"{identity.describe()}: {identity.weights_digest}")
        return EXIT_OK
    cache = ModelCache()
    network = load_network(spec, cache)
    # A cache that cannot keep anything is no fault where a job runs, but here it is all that was asked for.
    folder = os.path.dirname(network.graph_path)
    if os.path.dirname(folder) != cache_folder().rstrip("/"):
        raise InputError(
            f"HUGS_CACHE_DIR: nothing could be kept in {cache_folder()!r}; it must be a folder that can be written, "
            f"with {os.path.getsize(network.graph_path) / 1e6:.0f} MB free."
        )
    if args.gpu:
        load_operations(network, cache)
    print(f"{network.identity.describe()}: {network.identity.weights_digest}")
    print(f"kept in {folder}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
