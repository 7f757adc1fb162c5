"""Sets whose embeddings are mean colours, with photos of one colour, and the engine that made them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json

import numpy as np
from PIL import Image

from preprocess.engines.base import EngineInfo
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from tests.support import written_sets
from tests.support.written_sets import MEAN_COLOUR, write_record_set

INFO = EngineInfo(engine="stand_in", precision="float32", device="cpu", fidelity=None, why="for tests")


@dataclasses.dataclass
class MeanColourEngine:
    """Embeds an image as its mean colour."""

    identity: BackboneIdentity = MEAN_COLOUR
    info: EngineInfo = INFO
    batch_size: int = 2
    max_pending: int = 1

    def start(self, pixels, brightness=None):
        done: concurrent.futures.Future[np.ndarray] = concurrent.futures.Future()
        done.set_result(pixels.mean(axis=(1, 2)).astype(np.float32))
        return done


def write_photo_set(folder, name, colours, label_ids, *, labels=written_sets.COLOURS, with_files=True):
    """A set of photos of one colour each, `NAME/ROW.png`, with its list and report; returns the glob of its shards.

    The digests of the records are those of the files, and the URIs are relative to the list.
    """
    photos = folder / name
    photos.mkdir(parents=True)
    uris = []
    for row, colour in enumerate(colours):
        uris.append(f"{name}/{row}.png")
        Image.new("RGB", (32, 24), tuple(int(value) for value in colour)).save(photos / f"{row}.png")
    (folder / f"{name}.csv").write_text("".join(f"{uri},{labels[0]}\n" for uri in uris))
    contents = [(folder / uri).read_bytes() for uri in uris]
    prefix = write_record_set(
        str(folder / "out" / name),
        np.asarray(colours, np.float32),
        label_ids,
        labels=labels,
        uris=uris,
        contents=contents,
    )
    (folder / "out" / f"_{name}").mkdir(exist_ok=True)
    with open(sidecar_path(prefix, REPORT_NAME), "w") as stream:
        json.dump({"input": [str(folder / f"{name}.csv")]}, stream)
    if not with_files:
        for uri in uris:
            (folder / uri).unlink()
    return f"{prefix}*"
