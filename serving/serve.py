"""Answers requests with a trained model, on a web page and for programs.

python -m serving.serve --model_dir out/training/model
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from configs.activity import doing
from configs.errors import EXIT_OK, InputError
from configs.install_hint import install_hint
from configs.page import PageOptions
from configs.program import run_program
from configs.recipe import load_recipe
from serving.options import ServeOptions, parse_options

if TYPE_CHECKING:
    import uvicorn

    from serving.app import Server
    from serving.metrics import Metrics
    from serving.models import Models
    from serving.search.photo_search import PhotoSearch

_BACKLOG = 1024
_KEEP_ALIVE_SEC = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM or Ctrl-C. Then it answers the requests that are there, and ends.

    Returns:
      0.

    Raises:
      InputError: an argument is wrong, a model or its network cannot be loaded, or the port is taken.
    """
    # The head takes a fraction of a millisecond. Threads of OpenBLAS would not shorten that much, but keep a core busy
    # with waiting for more work. It reads the variable when NumPy is imported, which is later.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options = parse_options(argv)
    page = load_recipe(options.recipe).page if options.recipe else None
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401  # Not installed, it would be found only after the model is loaded.
        from prometheus_client import CollectorRegistry  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve: needs {error.name}. {install_hint('serve')}") from error
    listener = _bind(options.host, options.port)
    try:
        return _serve(options, page, listener)
    finally:
        listener.close()


def _bind(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet, so that nobody connects before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host: {host!r} is no address of this machine ({error}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"--port: {port} is used by another program. Pass another, or 0 for a free one."
            ) from error
        raise InputError(f"--host and --port: cannot listen on {host}, port {port} ({error.strerror}).") from error
    return listener


def _serve(options: ServeOptions, page: PageOptions | None, listener: socket.socket) -> int:
    with _logging():
        with contextlib.ExitStack() as loading:
            if options.search:
                from serving.loading import answering

                loading.enter_context(answering(listener, lambda app: _plain_server(app, options)))
            server = make_server(options, page)
        # A request of many small values would start the search for garbage, in all objects of the libraries.
        gc.freeze()
        listener.listen(_BACKLOG)
        print(f"serving {', '.join(options.names)} at {_address(listener)}", flush=True)
        server.run(sockets=[listener])
    return EXIT_OK


def make_server(options: ServeOptions, page: PageOptions | None) -> uvicorn.Server:
    """Loads the models and what is searched, and makes a server, which does not listen yet.

    Args:
      options: of the server.
      page: the texts and colours of the web page; None for those of the model.

    Raises:
      InputError: a model or its network cannot be loaded; or the record sets cannot be searched with it.
    """
    from serving.app import Server
    from serving.metrics import Metrics
    from serving.models import Models

    metrics = Metrics()
    if options.search:
        models, search = _with_search(options, metrics)
    else:
        models, search = Models(options, metrics), None
        with doing("loading the model"):
            models.load_first()
    server = Server(options, models, metrics, page, search)
    return _draining_server(_config(server.app(), options, lifespan="on"), server)


def _with_search(options: ServeOptions, metrics: Metrics) -> tuple[Models, PhotoSearch]:
    """The models, and the search of the network of the first one, whose answers are those of the page."""
    from serving.models import Models
    from serving.search.photo_search import open_photo_search
    from serving.search.searched_sets import find_searched_sets, require_network_of_model

    # What takes no time may be what is wrong.
    sets = find_searched_sets(options.search, index_folder=options.search_index)
    models = Models(options, metrics, searched=sets[0].manifest.backbone)
    require_network_of_model(sets, models.all[0].newest_info(), options.model_dir[0])
    with doing("loading the model"):
        models.load_first()
    search = open_photo_search(
        sets,
        folder=options.search_index,
        photo_dirs=options.photo_dirs,
        max_wait_sec=options.max_wait_sec,
        metrics=metrics,
    )
    return models, search


def _plain_server(app: Any, options: ServeOptions) -> uvicorn.Server:
    """A server of uvicorn that does nothing else than answer."""
    import uvicorn

    return uvicorn.Server(_config(app, options, lifespan="off"))


def _config(app: Any, options: ServeOptions, *, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    from uvicorn import Config

    from serving.http_protocol import BoundedProtocol
    from serving.request_log import MAX_HEAD_BYTES

    return Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan=lifespan,
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=options.max_connections,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SEC,
        timeout_graceful_shutdown=max(1, round(options.drain_sec)),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _draining_server(config: Any, server: Server) -> Any:
    """A server of uvicorn that ends with code 0 after a signal, and says meanwhile that it is not ready."""
    import uvicorn

    class DrainingServer(uvicorn.Server):
        served = server

        def handle_exit(self, sig: int, frame: Any) -> None:
            logging.getLogger("serving").info("%s: the server ends", signal.Signals(sig).name)
            server.is_draining = True
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # uvicorn would send them to this process again.

    return DrainingServer(config)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Log lines on standard error: those of requests, of models, and warnings of the libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    loggers = [(logging.getLogger("serving"), logging.INFO), (logging.getLogger("uvicorn"), logging.ERROR)]
    before = [(logger, logger.level, logger.propagate) for logger, _ in loggers]
    for logger, level in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


if __name__ == "__main__":
    run_program(main)
