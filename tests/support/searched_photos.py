"""Photos of a record set that the tiny network of the server's tests made, for `hugs serve --search`."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np

from preprocess.records.record_set import REPORT_NAME, sidecar_path
from serving.loaded_model import load_model
from serving.options import ServeOptions
from tests.support.classifiers import jpeg
from tests.support.written_sets import write_record_set

LABELS = ("hugs", "not-hugs", "bear")
# The photo whose file is so large that the page sends a smaller copy, the one whose file is gone, the one whose file is
# another now, and one of the web.
LARGE, GONE, REPLACED, WEB = 1, 3, 4, 5


@dataclasses.dataclass(frozen=True)
class SearchedPhotos:
    """A set, its photos, and the embeddings that its records have.

    Attributes:
      prefix: of the set.
      files: the content of each photo, as it was embedded.
      uris: of the photos, as the list has them.
      embeddings: float32, shape [n, 24].
    """

    prefix: str
    files: tuple[bytes, ...]
    uris: tuple[str, ...]
    embeddings: np.ndarray


def write_searched_photos(folder: pathlib.Path, model_dir: str, *, web_uri: str, name: str = "train") -> SearchedPhotos:
    """Writes eight photos and their set. The URIs are relative to the list, which lies in the folder."""
    loaded = load_model(model_dir, ServeOptions(model_dir=(model_dir,), engine="tensorflow", precision="float32"))
    # What lies behind the end of a JPEG is no part of the picture, and makes the file large.
    files = tuple(
        jpeg(number, (900, 700)) + bytes(300_000) if number == LARGE else jpeg(number, (90 + number, 70))
        for number in range(8)
    )
    uris = [f"{name}/{number} ä.jpg" for number in range(len(files))]
    (folder / name).mkdir()
    for uri, content in zip(uris, files, strict=True):
        (folder / uri).write_bytes(content)
    (folder / uris[GONE]).unlink()
    (folder / uris[REPLACED]).write_bytes(jpeg(9))
    uris[WEB] = web_uri
    from preprocess.images.decode import decode_image

    pixels = np.stack([decode_image(content, size=loaded.info.image.size) for content in files])
    step = loaded.engine.batch_size
    batches = [loaded.engine.start(pixels[at : at + step]).result() for at in range(0, len(pixels), step)]
    embeddings = np.concatenate(batches)
    label_ids = [[number % 3] for number in range(len(files))]
    label_ids[6], label_ids[7] = [0, 2], []
    prefix = write_record_set(
        str(folder / "out" / name),
        embeddings,
        label_ids,
        labels=LABELS,
        identity=loaded.info.backbone,
        uris=uris,
        contents=files,
    )
    with open(sidecar_path(prefix, REPORT_NAME), "w") as stream:
        json.dump({"input": [str(folder / f"{name}.csv")]}, stream)
    return SearchedPhotos(prefix=prefix, files=files, uris=tuple(uris), embeddings=embeddings)
