"""The options of the import of bottlenecks."""

from __future__ import annotations

import dataclasses

from configs.choices import Compression
from configs.errors import InputError
from configs.option import REQUIRED, Options, option
from configs.rules import Number, OneOf, PathText, Switch, Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """The options of the program.

    Raises:
      InputError: a value breaks its rule.
    """

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
