"""The options of `hugs serve`. Those that Vertex AI gives by environment variables are defaults here."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs.arguments import OneLineParser
from configs.choices import EngineName, PrecisionName
from configs.errors import InputError
from configs.option import REQUIRED, Options, add_flags, given_values, option, options_of, same_option
from configs.recipe import PreprocessOptions
from configs.rules import Number, PathText, Text, Texts, Whole
from serving.allowed_hosts import host_name
from trainer.arguments import split_paths
from trainer.options import DataOptions, Path, Paths, with_supported_paths

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_ROUTE = re.compile(r"/[A-Za-z0-9._~/:@!$&'()*+,;=-]*")
DEFAULT_NAME = "hugs"
# What Vertex AI tells a container, and the option that it is:
# https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
_VERTEX = {
    "AIP_STORAGE_URI": "model_dir",
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "health_route",
    "AIP_PREDICT_ROUTE": "predict_route",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions(Options):
    """The options of the server.

    Raises:
      InputError: a value breaks its rule, or two values contradict each other.
    """

    # It has no annotation: `runpy` can run a program without registering its module, and then dataclasses do not
    # recognize ClassVar and make a field of it.
    prefix = "--"

    model_dir: tuple[str, ...] = option(
        REQUIRED,
        Paths("read"),
        help="the model that `hugs train` wrote, or a folder of numbered versions of it (1, 2 ...), local or gs://; "
        "several for several models",
        decides="neither",
        metavar="DIR",
    )
    name: tuple[str, ...] = option(
        (),
        Texts(),
        help="the name of the model in addresses; repeated, in the order of --model_dir",
        decides="neither",
        metavar="NAME",
        default_words=DEFAULT_NAME,
    )
    recipe: str | None = option(
        None,
        Text(anything=True),
        help="name or file of a recipe: its section page has the texts and colours of the web page",
        default_words="those that the model was trained with",
        decides="neither",
        metavar="NAME|FILE",
    )
    versions: int = option(2, Whole(1), help="how many versions of a model are served, the newest", decides="neither")
    host: str = option(
        "127.0.0.1",
        Text(),
        help="the address to listen on; 0.0.0.0 lets other machines in",
        decides="neither",
        metavar="ADDRESS",
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        Texts(),
        help="answer also to requests that name these hosts, for a proxy on this machine that passes the name on; "
        "repeat or separate by commas. On a loopback address only loopback names are answered, so that no web page "
        "reads from the server through a name of its own. On another address all names are answered without this flag",
        decides="neither",
        metavar="NAME",
        default_words="none",
    )
    port: int = option(8080, Whole(0), help="the port to listen on; 0 for any that is free", decides="neither")
    engine: EngineName = same_option(PreprocessOptions, "engine", decides="neither", decides_time=False)
    precision: PrecisionName = same_option(
        PreprocessOptions,
        "precision",
        help="precision of the network's arithmetic: auto takes bfloat16 if it is faster and agrees with float32; "
        "int8 is calibrated on the photos of --calibrate_with",
        decides="neither",
        decides_time=False,
    )
    calibrate_with: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="for --precision int8: photos like those that will be asked about, as a list, a folder or a glob; 48 of "
        "them are read. With the list of the training, the server computes as its records were made",
        decides="neither",
        metavar="LIST|FOLDER",
    )
    weights: str | None = option(
        None,
        PathText(anything=False),
        help="the weights of the network, if they are not where the model says; their digest must be the model's",
        decides="neither",
        metavar="FILE",
        default_words="what the model says",
    )
    search: tuple[str, ...] = option(
        (),
        Paths("read"),
        help="record sets that the network of the model made: the page shows the photos of these sets that are most "
        "similar to a photo, to whoever reaches the server; shards, globs or prefixes; repeat or separate by commas",
        decides="neither",
        metavar="PATH",
        default_words="no search",
    )
    search_index: str | None = option(
        None,
        Path("a folder", "written"),
        help="for --search: local folder of the index, as for `hugs search --index`: made at the first start, used "
        "while the sets are the same, extended when they grow",
        decides="neither",
        metavar="DIR",
        default_words="a temporary one, made at each start",
    )
    photo_dirs: tuple[str, ...] = same_option(
        DataOptions,
        "photo_dirs",
        help="for --search: show photos only if they lie in these folders",
        default_words="all folders",
    )
    max_batch: int | None = option(
        None,
        Whole(1),
        help="images a batch, at most",
        decides="neither",
        metavar="N",
        default_words="what suits the engine",
    )
    max_delay_ms: float = option(
        2,
        Number(at_least=0, unit="milliseconds"),
        help="how long an image waits for others to fill its batch",
        decides="neither",
        metavar="MS",
    )
    max_queue: int = option(
        256,
        Whole(1),
        help="images that are worked on or wait; a request beyond them is answered with 429 and Retry-After",
        decides="neither",
        metavar="N",
    )
    max_wait_sec: float = option(
        30,
        Number(above=0, unit="seconds"),
        help="an image that waits longer for its turn is answered with 429, too",
        decides="neither",
        metavar="SEC",
    )
    max_body_bytes: int = option(
        64 * 1024 * 1024,
        Whole(1024),
        help="the largest body of a request",
        decides="neither",
        metavar="N",
        default_words="64 MiB",
    )
    max_image_pixels: int = same_option(PreprocessOptions, "max_image_pixels")
    image_deadline_sec: float = same_option(
        PreprocessOptions, "image_deadline_sec", default=10, help="an image fails if decoding it takes longer"
    )
    body_deadline_sec: float = option(
        30,
        Number(above=0, unit="seconds"),
        help="how long the body of a request may take to arrive",
        decides="neither",
        metavar="SEC",
    )
    max_connections: int = option(
        1000, Whole(1), help="open connections; others are answered with 503", decides="neither", metavar="N"
    )
    poll_sec: float = option(
        10,
        Number(at_least=0, unit="seconds"),
        help="how often the server looks for a new version; 0 for never",
        decides="neither",
        metavar="SEC",
    )
    drain_sec: float = option(
        30,
        Number(at_least=0, unit="seconds"),
        help="after SIGTERM, how long requests that are there may take",
        decides="neither",
        metavar="SEC",
    )
    health_route: str = option(
        "/healthz",
        Text(),
        help="a further address of /readyz",
        decides="neither",
        metavar="PATH",
        default_words="AIP_HEALTH_ROUTE, or none",
    )
    predict_route: str = option(
        "/predict",
        Text(),
        help="a further address of /predict",
        decides="neither",
        metavar="PATH",
        default_words="AIP_PREDICT_ROUTE, or none",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.port > 65535:
            self._fail("port", "a whole number from 0 to 65535")
        if not self.model_dir:
            raise InputError("--model_dir: name the model that `hugs train` wrote.")
        if self.precision == "int8" and not self.calibrate_with:
            raise InputError(
                "--precision: int8 is calibrated on photos. Name some with --calibrate_with, best the list that the "
                "model was trained on, or pass auto, float32 or bfloat16."
            )
        if self.calibrate_with and self.precision != "int8":
            raise InputError("--calibrate_with: belongs to --precision int8. Leave one out, or give both.")
        for name in ("search_index", "photo_dirs"):
            if getattr(self, name) and not self.search:
                raise InputError(f"--{name}: belongs to --search, and none is given.")
        if self.search_index is not None and "://" in self.search_index:
            raise InputError(f"--search_index: must be a folder of this machine. Received: {self.search_index!r}.")
        for name in self.allowed_hosts:
            if "*" in name:
                raise InputError(
                    "--allowed_hosts: there are no wildcards. Give each name in full, such as photos.example.org. "
                    f"Received: {name!r}."
                )
            if host_name(f"[{name}]" if ":" in name else name) != name:
                raise InputError(
                    "--allowed_hosts: must be names of hosts or addresses, such as photos.example.org. Received: "
                    f"{name!r}."
                )
        for route in ("health_route", "predict_route"):
            if not _ROUTE.fullmatch(getattr(self, route)):
                self._fail(route, "a path such as /predict")
        names = self.names
        if len(names) != len(self.model_dir):
            raise InputError(
                f"--name: {len(self.model_dir)} models need as many names, in the order of --model_dir. Received: "
                f"{len(self.name)}."
            )
        for number, name in enumerate(names):
            if not _NAME.fullmatch(name) or name in names[:number]:
                raise InputError(
                    '--name: must be letters, digits, ".", "_" and "-", each name once, since addresses have them. '
                    f"Received: {name!r}."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, in the order of `model_dir`."""
        return self.name or (DEFAULT_NAME,)


def parse_options(argv: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> ServeOptions:
    """Reads the command line. Flags override what Vertex AI says by environment variables.

    Raises:
      InputError: a flag or an environment variable is unknown, missing or breaks its rule.
    """
    parser = OneLineParser(
        module="serving.serve",
        description="Answers requests with a trained model: a web page, and TensorFlow Serving's and Vertex AI's API.",
    )
    options = options_of(ServeOptions)
    # It is required, but Vertex AI may name it.
    add_flags(parser, {**options, "model_dir": dataclasses.replace(options["model_dir"], default=())})
    values: dict[str, Any] = {}
    for variable, name in _VERTEX.items():
        if text := environ.get(variable):
            values[name] = _of_variable(variable, name, text)
    values |= given_values(parser.parse_args(argv), ServeOptions)
    values.setdefault("model_dir", ())
    if "allowed_hosts" in values:
        names = (name.strip() for text in values["allowed_hosts"] for name in text.split(","))
        # As the header may have it, with a port and capitals.
        values["allowed_hosts"] = tuple(host_name(name) or name for name in names if name)
        if not values["allowed_hosts"]:
            raise InputError("--allowed_hosts: names nothing. Leave it out, or name a host.")
    for name in ("search", "photo_dirs"):
        if name in values:
            values[name] = split_paths(values[name])
            if not values[name]:
                raise InputError(f"--{name}: names nothing. Leave it out, or name a path.")
    return ServeOptions(**with_supported_paths(values, ServeOptions))


def _of_variable(variable: str, name: str, text: str) -> Any:
    if name == "model_dir":
        return (text,)
    if name != "port":
        return text
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise InputError(f"{variable}: must be a port. Received: {text!r}.")
    return int(text)
