"""The files of the web page, which are read once when the server starts, and what the page is told of the model."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import itertools
from typing import Any

from configs.choices import NEUTRAL_COLOURS
from configs.page import PageOptions
from trainer.export.model_info import ModelInfo

# Similar photos below an answer: two rows of four on a wide page.
_SIMILAR_PHOTOS = 8
_MEDIA_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


@dataclasses.dataclass(frozen=True)
class PageFile:
    """A file of the page: its content, its media type, and a tag that changes with the content."""

    content: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """The files of the page by the path of their address. No request makes the server open a file."""
    files = {}
    for entry in importlib.resources.files("serving").joinpath("page").iterdir():
        kind = entry.name.rpartition(".")[2]
        if kind in _MEDIA_TYPES:
            content = entry.read_bytes()
            file = PageFile(content, _MEDIA_TYPES[kind], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
            files["/" if entry.name == "index.html" else f"/page/{entry.name}"] = file
    return files


def page_settings(
    page: PageOptions, info: ModelInfo, *, max_body_bytes: int, searched: int | None = None
) -> dict[str, Any]:
    """What the page is told.

    Args:
      page: the texts and colours of the recipe or of the model.
      info: of the model.
      max_body_bytes: the largest photo that the server takes.
      searched: how many photos are searched for similar ones; None if the server does not search.
    """
    # Which answer is good and which is bad, only somebody can say who knows what they are for.
    neutral = [colour for colour in NEUTRAL_COLOURS if colour not in page.colours.values()] or NEUTRAL_COLOURS
    others = (label for label in info.labels if label not in page.colours)
    colours = {**page.colours, **dict(zip(others, itertools.cycle(neutral), strict=False))}
    return {
        "title": page.title,
        "labels": [
            {
                "name": label,
                "text": page.texts.get(label, label),
                "colour": colours[label],
            }
            for label in info.labels
        ],
        "one_answer": info.label_mode == "single",
        "threshold": info.threshold,
        "image_size": info.image.size,
        "max_body_bytes": max_body_bytes,
        "warning": _warning(info),
        "search": None if searched is None else {"photos": searched, "count": _SIMILAR_PHOTOS},
    }


def _warning(info: ModelInfo) -> str:
    """`info.warning` for people who know nothing of networks; empty if there is none."""
    if info.backbone.is_random:
        return "This is a trial: the network behind this page has learned nothing, so its answers mean nothing."
    if not info.backbone_verified:
        return "Take the answers with care: nothing shows that this model has the network that it was made for."
    return ""
