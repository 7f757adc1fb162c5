"""The requests of many kinds of clients, good and bad ones mixed, with the status that is right for each."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
from collections.abc import Sequence

_PREDICT = "/v1/models/hugs:predict"


@dataclasses.dataclass(frozen=True)
class MixedRequest:
    """A request, and the status that it must get."""

    name: str
    method: str
    path: str
    body: bytes = b""
    kind: str = "application/octet-stream"
    status: int = 200

    def send(self, connection: http.client.HTTPConnection) -> int:
        """Sends it over a connection, which may have been closed by the server; gives the status of the answer."""
        connection.request(self.method, self.path, self.body, {"Content-Type": self.kind})
        response = connection.getresponse()
        response.read()
        return response.status


def mixed_requests(photos: Sequence[bytes], embedding_size: int) -> list[MixedRequest]:
    """As many different requests as there are photos, and some more.

    Args:
      photos: files of images.
      embedding_size: of the model's network.
    """
    found = []
    for number, photo in enumerate(photos):
        found.append(MixedRequest(f"photo {number}", "POST", "/predict?top_k=2", photo))
        if number % 4 == 0:
            found += _in_other_forms(number, photos[number : number + 4])
        if number % 8 == 0:
            found += _bad(number, photo) + _questions(number, embedding_size)
    return found


def _in_other_forms(number: int, photos: Sequence[bytes]) -> list[MixedRequest]:
    encoded = [{"b64": base64.b64encode(photo).decode()} for photo in photos]
    rows = [{"key": str(key), "image_bytes": image} for key, image in enumerate(encoded)]
    form = (
        b"--mark\r\nContent-Disposition: form-data; name=photo; filename=a.jpg\r\n\r\n"
        + photos[0]
        + b"\r\n--mark--\r\n"
    )
    json_kind = "application/json"
    return [
        MixedRequest(f"form {number}", "POST", "/predict", form, "multipart/form-data; boundary=mark"),
        MixedRequest(f"rows {number}", "POST", _PREDICT, _json({"instances": rows}), json_kind),
        MixedRequest(
            f"columns {number}",
            "POST",
            _PREDICT,
            _json({"signature_name": "embed_images", "inputs": {"image_bytes": encoded}}),
            json_kind,
        ),
    ]


def _bad(number: int, photo: bytes) -> list[MixedRequest]:
    return [
        MixedRequest(f"empty {number}", "POST", "/predict", b"", status=400),
        MixedRequest(f"svg {number}", "POST", "/predict", b"<svg/>", status=415),
        MixedRequest(f"cut {number}", "POST", "/predict", photo[: len(photo) // 2], status=422),
        MixedRequest(f"zeros {number}", "POST", "/predict", bytes(100_000), status=415),
        MixedRequest(f"no JSON {number}", "POST", _PREDICT, b"{", "application/json", status=400),
        MixedRequest(f"no address {number}", "GET", f"/{number}", status=404),
        MixedRequest(f"no model {number}", "GET", f"/v1/models/m{number}", status=404),
    ]


def _questions(number: int, embedding_size: int) -> list[MixedRequest]:
    embeddings = {"signature_name": "embeddings", "instances": [[0.01 * number] * embedding_size] * 3}
    return [
        MixedRequest(f"embeddings {number}", "POST", _PREDICT, _json(embeddings), "application/json"),
        *(
            MixedRequest(f"{path} {number}", "GET", path)
            for path in ("/", "/page/page.js", "/metrics", "/readyz", "/v1/models/hugs", "/v1/models/hugs/metadata")
        ),
    ]


def _json(data: object) -> bytes:
    return json.dumps(data).encode()
