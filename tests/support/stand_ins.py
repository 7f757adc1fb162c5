"""Stand-ins for the slow parts: an engine of three floats, and images of four bytes."""

import concurrent.futures
import dataclasses
import datetime

import numpy as np

from preprocess.engines.base import EngineInfo
from preprocess.images.decode import ImageError
from preprocess.jobs.job import Job
from preprocess.lists.outcomes import RowFailure
from preprocess.records.backbone_identity import BackboneIdentity

IDENTITY = BackboneIdentity(
    architecture="stand_in",
    weights="random",
    seed=0,
    weights_digest="sha256:0",
    embedding_size=3,
    image_definition="stand-in/1",
)


INFO = EngineInfo(engine="stand_in", precision="float32", device="cpu", fidelity=None, why="for tests")


def make_job(folder, **changes):
    """A job that writes a set into a folder."""
    fields = {
        "definition": {},
        "run_id": "r1",
        "output_prefix": str(folder / "out" / "train"),
        "compression": "none",
        "labels": ("a", "b"),
        "input_paths": ("list.csv",),
        "input_sha256": ("0" * 64,),
        "rows_expected": 10,
        "started": datetime.datetime.now(datetime.UTC),
        "versions": {},
    }
    return Job(**(fields | changes))


@dataclasses.dataclass
class StandInEngine:
    """Embeds an image as (its value, 1, images in its batch); 254 and 255 make embeddings that must fail."""

    identity: BackboneIdentity = IDENTITY
    info: EngineInfo = INFO
    batch_size: int = 4
    max_pending: int = 2
    batches: list[int] = dataclasses.field(default_factory=list)

    def embed(self, pixels):
        self.batches.append(len(pixels))
        values = pixels[:, 0, 0, 0].astype(np.float32)
        embeddings = np.stack([values, np.ones_like(values), np.full_like(values, len(values))], axis=1)
        embeddings[values == 254] = 0
        embeddings[values == 255] = np.nan
        return embeddings

    def start(self, pixels, brightness=None):
        if brightness is not None:
            pixels = pixels * brightness.reshape(-1, 1, 1, 1)
        return _thread.submit(self.embed, pixels)


_thread = concurrent.futures.ThreadPoolExecutor(1)


def load_stand_in():
    return StandInEngine()


class IndependentStandInEngine(StandInEngine):
    """Its embeddings do not depend on their batch."""

    def embed(self, pixels):
        embeddings = super().embed(pixels)
        embeddings[:, 2] = 2 * embeddings[:, 0] + 1
        return embeddings


def load_independent_stand_in():
    return IndependentStandInEngine()


def load_gpu_stand_in():
    return StandInEngine(info=dataclasses.replace(INFO, device="gpu"))


def read_stand_in(location):
    """`dir/7.jpg` reads as b"7"; names with "missing" fail."""
    if "missing" in location:
        raise RowFailure("read", "not_found", f"No such file: {location}")
    return location.rpartition("/")[2].partition(".")[0].encode()


def decode_stand_in(data):
    """The number that the bytes spell, in every pixel."""
    if data == b"crash":
        raise ZeroDivisionError("a decoder's own bug")
    if not data.isdigit():
        raise ImageError("not_an_image", f"{data!r} is no image.")
    return np.full((2, 2, 3), int(data) % 256, np.uint8)
