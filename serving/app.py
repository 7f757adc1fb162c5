"""The server's application: routes and what each answers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from configs.page import PageOptions
from preprocess.images.decode import ImageError
from preprocess.machine.machine_faults import MachineFault
from serving import tensorflow_api
from serving.admission import Admission
from serving.allowed_hosts import AllowedHosts, listens_on_loopback
from serving.batching import NetworkOutput
from serving.bodies import body_of, file_of, parse_json
from serving.decoding import WaitedTooLongError
from serving.metrics import CONTENT_TYPE, Metrics
from serving.models import Models, ServedVersion
from serving.options import ServeOptions
from serving.page_files import page_files, page_settings
from serving.refusals import RefusedError, refused_image
from serving.request_log import RequestLog, note
from serving.search.search_request import SearchRequest, read_search

if TYPE_CHECKING:  # A server without --search need not import what reads record sets.
    from serving.search.photo_search import PhotoSearch

_LOGGER = logging.getLogger("serving")
# A larger body of JSON is read in another thread, so that the other requests do not wait for it.
_LARGE_JSON_BYTES = 256 * 1024
# The bodies in memory at once, in bodies of the largest size.
_BODIES_IN_MEMORY = 8
_DEFAULT_TOP_K = 5

_T = TypeVar("_T")


class Server:
    """The state of a server, and its handlers.

    Attributes:
      models: the models that are served.
      search: finds similar photos; None if the server does not search.
      admission: lets in as much as the server takes at once.
      is_draining: whether the server ends: it answers the requests that are there, and says that it is not ready.
    """

    def __init__(
        self,
        options: ServeOptions,
        models: Models,
        metrics: Metrics,
        page: PageOptions | None,
        search: PhotoSearch | None = None,
    ):
        self.models = models
        self.search = search
        self.is_draining = False
        self._options = options
        self._metrics = metrics
        self._page = page
        self._files = page_files()
        self.admission = Admission(max_images=options.max_queue, max_bytes=_BODIES_IN_MEMORY * options.max_body_bytes)
        metrics.watch_in_flight(lambda: self.admission.images)

    def app(self) -> Any:
        """The ASGI application."""
        app = Starlette(
            routes=self._routes(),
            exception_handlers={
                RefusedError: _refusal,
                HTTPException: _http_error,
                ClientDisconnect: _client_has_gone,
                MachineFault: _machine_fault,
                WaitedTooLongError: self._waited_too_long,
            },
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False  # A redirect would lead to the host that the request names.
        return RequestLog(self._for_known_hosts(app), self._metrics)

    def _for_known_hosts(self, app: Any) -> Any:
        options = self._options
        if options.allowed_hosts or listens_on_loopback(options.host):
            return AllowedHosts(app, options.allowed_hosts)
        return app

    async def _waited_too_long(self, request: Request, error: Exception) -> Response:
        return await _refusal(request, self.admission.busy())

    def _routes(self) -> list[BaseRoute]:
        get, post = ["GET"], ["POST"]
        model = "/v1/models/{name}"
        version = f"{model}/versions/{{version}}"
        options = self._options
        routes: list[BaseRoute] = [
            Route("/healthz", self._alive, methods=get),
            Route("/readyz", self._ready, methods=get),
            Route("/metrics", self._show_metrics, methods=get),
            Route("/predict", self._predict, methods=post),
            Route("/page/settings.json", self._settings, methods=get),
        ]
        if options.health_route != "/healthz":
            routes.insert(0, Route(options.health_route, self._ready, methods=get))
        if options.predict_route != "/predict":
            routes.insert(0, Route(options.predict_route, self._predict, methods=post))
        if self.search is not None:
            routes += [
                Route("/search", self._search_photo, methods=post),
                Route("/search/photos/{tag}/{row}", self._photo_of_set, methods=get),
            ]
        for path in (model, version):
            if self.search is not None:
                routes.append(Route(f"{path}:search", self._search_rows, methods=post))
            routes += [
                Route(f"{path}:predict", self._predict_rows, methods=post),
                Route(f"{path}:{{verb}}", self._no_such_verb, methods=post),
                Route(f"{path}/metadata", self._metadata, methods=get),
                Route(path, self._status, methods=get),
            ]
        routes += [Route(path, self._file, methods=get) for path in self._files if path not in ("/healthz", "/readyz")]
        return routes

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(self.models.watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _alive(self, request: Request) -> Response:
        note(request, "healthz")
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        note(request, "readyz")
        if self.is_draining or not self.models.are_ready:
            raise RefusedError(503, "The server ends." if self.is_draining else "No version of the model is served.")
        return JSONResponse({"status": "ready"})

    async def _show_metrics(self, request: Request) -> Response:
        note(request, "metrics")
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _file(self, request: Request) -> Response:
        note(request, "page")
        file = self._files[request.scope["path"]]
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    async def _settings(self, request: Request) -> Response:
        note(request, "page")
        served = self._version(None)
        searches = self.search is not None and self.search.fits(served.info)
        settings = page_settings(
            self._page or served.info.page,
            served.info,
            max_body_bytes=self._options.max_body_bytes,
            searched=self.search.records if self.search is not None and searches else None,
        )
        return JSONResponse(settings, headers={"Cache-Control": "no-cache"})

    def _version(self, name: str | None, number: int | None = None) -> ServedVersion:
        model = self.models.all[0] if name is None else self.models.get(name)
        served = model.get(number) if model else None
        if served is None:
            # A name that is none of ours is not repeated.
            raise tensorflow_api.no_such_version(model.name if model else "?", number)
        return served

    async def _predict(self, request: Request) -> Response:
        """One photo in the body or in a form; or JSON, as Vertex AI sends it."""
        note(request, "predict")
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() == "application/json":
            return await self._answer_rows(request, self._version(None))
        served = self._version(None)
        top_k = _top_k(request)
        asked = read_search(request, parameter="nearest") if "nearest" in request.query_params else None
        found: dict[str, Any] = {}
        async with self._body(request) as body:
            image = file_of(body, kind)
            note(request, images=1, served=f"{served.name}/{served.number}")
            with self.admission.images_in_flight(1):
                output = await served.run(image)
                if asked is not None and not isinstance(output, ImageError):
                    found = await self._also_nearest(served, output, image, asked)
        prediction = served.prediction_of(output)
        if prediction.error:
            raise refused_image(prediction.error)
        return JSONResponse({**prediction.to_json(served.info, top_k), **found})

    async def _also_nearest(
        self, served: ServedVersion, output: NetworkOutput, image: bytes, asked: SearchRequest
    ) -> dict[str, Any]:
        """What an answer also says of similar photos. Without them, the prediction is still one."""
        try:
            search = self._search_for(served)
        except RefusedError as error:
            return {"nearest": None, "nearest_error": error.message}
        (near,) = await search.nearest(output.embedding[np.newaxis], asked.count)
        return {"nearest": search.to_json(near, asked.digest_of(image))}

    def _search_for(self, served: ServedVersion) -> PhotoSearch:
        """The search, for a version. Raises RefusedError if there is none, or it is of another network."""
        if self.search is None:
            raise RefusedError(400, "This server does not search: it was started without --search.", reason="no_search")
        if not self.search.fits(served.info):
            raise RefusedError(
                400,
                "Similar photos cannot be found with this version of the model: it has another network than the one "
                "that made the records of the photos.",
                reason="other_network",
            )
        return self.search

    async def _search_photo(self, request: Request) -> Response:
        """One photo in the body or in a form; or JSON in rows."""
        note(request, "search")
        served = self._version(None)
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() == "application/json":
            return await self._answer_search(request, served)
        asked, search = read_search(request, parameter="count"), self._search_for(served)
        async with self._body(request) as body:
            image = file_of(body, kind)
            note(request, images=1, served=f"{served.name}/{served.number}")
            with self.admission.images_in_flight(1):
                output = await served.run(image)
                if isinstance(output, ImageError):
                    raise refused_image(str(output))
                (near,) = await search.nearest(output.embedding[np.newaxis], asked.count)
        return JSONResponse({"nearest": search.to_json(near, asked.digest_of(image))})

    async def _search_rows(self, request: Request) -> Response:
        note(request, "v1:search")
        return await self._answer_search(request, self._version(*_model_of(request)))

    async def _answer_search(self, request: Request, served: ServedVersion) -> Response:
        wanted, search = read_search(request, parameter="count"), self._search_for(served)
        async with self._body(request) as body:
            asked = await _rows_asked(body, served)
            note(request, images=asked.size, served=f"{served.name}/{served.number}")
            with self.admission.images_in_flight(asked.size):
                rows = await _searched_rows(search, served, asked, wanted)
        return JSONResponse(tensorflow_api.response_of(rows, asked))

    async def _photo_of_set(self, request: Request) -> Response:
        note(request, "search/photos")
        row = request.path_params["row"]
        picture = None
        if self.search is not None and row.isascii() and row.isdigit() and len(row) < 12:
            picture = await self.search.thumbnail(request.path_params["tag"], int(row))
        if picture is None:
            raise RefusedError(404, "This photo cannot be shown here.", reason="no_photo")
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def _predict_rows(self, request: Request) -> Response:
        note(request, "v1:predict")
        return await self._answer_rows(request, self._version(*_model_of(request)))

    async def _answer_rows(self, request: Request, served: ServedVersion) -> Response:
        async with self._body(request) as body:
            asked = await _rows_asked(body, served)
            note(request, images=asked.size, served=f"{served.name}/{served.number}")
            with self.admission.images_in_flight(asked.size):
                rows = await _rows(served, asked)
        return JSONResponse(tensorflow_api.response_of(rows, asked))

    def _body(self, request: Request) -> contextlib.AbstractAsyncContextManager[bytes]:
        return body_of(
            request,
            self.admission,
            max_bytes=self._options.max_body_bytes,
            deadline_sec=self._options.body_deadline_sec,
        )

    async def _no_such_verb(self, request: Request) -> Response:
        note(request, "v1:other")
        verbs = ":predict" if self.search is None else ":predict and :search"
        raise RefusedError(400, f"Malformed request: the model answers {verbs}.")

    async def _metadata(self, request: Request) -> Response:
        note(request, "v1/metadata")
        return JSONResponse(tensorflow_api.metadata_of(self._version(*_model_of(request))))

    async def _status(self, request: Request) -> Response:
        note(request, "v1/status")
        name, number = _model_of(request)
        model = self.models.get(name)
        if model is None:
            raise tensorflow_api.no_such_version("?", number)
        return JSONResponse(tensorflow_api.status_of(model, number))


async def _rows_asked(body: bytes, served: ServedVersion) -> tensorflow_api.PredictRequest:
    if len(body) < _LARGE_JSON_BYTES:
        return tensorflow_api.read_request(parse_json(body), served.info)
    return await asyncio.to_thread(lambda: tensorflow_api.read_request(parse_json(body), served.info))


async def _searched_rows(
    search: PhotoSearch, served: ServedVersion, asked: tensorflow_api.PredictRequest, wanted: SearchRequest
) -> list[dict[str, Any]]:
    if asked.embeddings is not None:
        found = await search.nearest(asked.embeddings, wanted.count)
        return [{"nearest": search.to_json(near, None), "error": ""} for near in found]
    outputs = await _together(map(served.run, asked.images))
    rows: list[dict[str, Any]] = [
        {"nearest": [], "error": str(output) if isinstance(output, ImageError) else ""} for output in outputs
    ]
    embeddings = [output.embedding for output in outputs if not isinstance(output, ImageError)]
    found = await search.nearest(np.stack(embeddings), wanted.count) if embeddings else []
    good = [number for number, row in enumerate(rows) if not row["error"]]
    for number, near in zip(good, found, strict=True):
        digest = hashlib.sha256(asked.images[number]).hexdigest()
        rows[number]["nearest"] = search.to_json(near, digest)
    return rows


async def _rows(served: ServedVersion, asked: tensorflow_api.PredictRequest) -> list[dict[str, Any]]:
    if asked.embeddings is not None:
        predictions = await served.classify(asked.embeddings)
        return [tensorflow_api.row_of(prediction, with_error=False) for prediction in predictions]
    if asked.signature != "embed_images":
        return [tensorflow_api.row_of(answer) for answer in await _together(map(served.predict, asked.images))]
    size = served.info.backbone.embedding_size
    return [
        {"embeddings": [0.0] * size, "error": str(output)}
        if isinstance(output, ImageError)
        else {"embeddings": output.embedding.tolist(), "error": ""}
        for output in await _together(map(served.run, asked.images))
    ]


async def _together(work: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """The results of work that is done at once. If one fails or the request is given up, the others end too."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _model_of(request: Request) -> tuple[str, int | None]:
    version = request.path_params.get("version")
    if version is None:
        return request.path_params["name"], None
    if not version.isascii() or not version.isdigit() or len(version) > 18:
        raise RefusedError(400, "A version is a number.")
    return request.path_params["name"], int(version)


def _top_k(request: Request) -> int:
    text = request.query_params.get("top_k", str(_DEFAULT_TOP_K))
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 9):
        raise RefusedError(400, "top_k must be a whole number of at least 1.")
    return int(text)


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


async def _client_has_gone(request: Request, error: Exception) -> Response:
    # Nobody reads it; the log shows the status that nginx made known.
    return Response(status_code=499)


async def _machine_fault(request: Request, error: Exception) -> Response:
    _LOGGER.error("this machine cannot decode: %s", error)
    refusal = RefusedError(503, "The server cannot work on images now. Try again.", headers={"Retry-After": "5"})
    return await _refusal(request, refusal)
