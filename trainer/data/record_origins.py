"""How record sets were made: the lists, and the engines and precisions that computed the embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainer.data.record_sets import RecordSet

_LIBRARY_NAMES = {"tensorflow": "TensorFlow", "openvino": "OpenVINO"}


def _engine(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "engine": str(found["engine"]),
        "precision": str(found["precision"]),
        "device": str(found["device"]),
        "libraries": [str(library) for library in found.get("libraries") or ()],
    }


def _origin(record_set: RecordSet) -> dict[str, Any]:
    try:
        return {
            "prefix": record_set.prefix,
            "lists": [str(path) for path in record_set.report["input"]],
            "engines": [_engine(found) for found in record_set.report["engines"]],
        }
    except (KeyError, TypeError, AttributeError):
        return {"prefix": record_set.prefix, "lists": [], "engines": []}  # made elsewhere, or by an earlier version


def record_origins(sets: Mapping[str, Iterable[RecordSet]]) -> dict[str, list[dict[str, Any]]]:
    """How the sets of each part ("train", "eval", "test") were made, for metrics.json.

    Returns:
      For each set `prefix`; `lists`: the paths of the lists, as they were given to the pipeline (relative URIs of the
      records are relative to their folders); and `engines`: what computed the embeddings, with `engine`, `precision`,
      `device` and `libraries` (names and versions). There is more than one engine only if workers differed. Lists and
      engines are empty if the set does not say how it was made.
    """
    return {name: [_origin(record_set) for record_set in part] for name, part in sets.items()}


def engine_words(origins: Sequence[Mapping[str, Any]]) -> str:
    """What computed the embeddings of some sets, in words: "OpenVINO in int8"; empty if it is not known."""
    engines = [engine for origin in origins for engine in origin["engines"]]
    words = [
        f"{_LIBRARY_NAMES.get(engine['engine'], engine['engine'])} in {engine['precision']}"
        + (" on a GPU" if engine["device"] == "gpu" else "")
        for engine in engines
    ]
    return " and ".join(dict.fromkeys(words))


def origin_warnings(origins: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A warning if sets of a run were computed in different ways; sentences."""
    words = {name: engine_words(part) for name, part in origins.items()}
    if len(set(filter(None, words.values()))) < 2:
        return []
    each = ", ".join(f"those of {name} by {found}" for name, found in words.items() if found)
    return [f"the embeddings were not all computed in the same way ({each}): embed all sets with one --precision"]
