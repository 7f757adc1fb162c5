"""An index of record sets in a folder, so that a search reads a few vectors and not all shards.

`index.json` is written last and names the other files; each change writes new files under new names, so a search that
reads the old ones at the same time is not disturbed. One program at a time writes (`one_writer`). The vectors lie in a
file as float16 at length 1, half as large as the shards; a search reads from it only what it needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from insight.data.record_pieces import RecordPiece, read_pieces, shards_of
from insight.data.writable_folder import require_writable
from insight.index.cells import (
    SAMPLE,
    TESTED,
    TESTED_COUNT,
    Cells,
    Effort,
    measured,
    rescored,
    usable,
)
from insight.index.near_photo import NearPhoto, digest_text, label_names
from insight.index.one_writer import one_writer
from insight.index.through_shards import end_of, no_such_photo
from insight.neighbours.exact import unit_vectors
from insight.neighbours.graph import has_faiss
from insight.neighbours.streamed import BestSoFar
from preprocess.records.backbone_identity import BackboneIdentity
from trainer.data.record_sets import RecordSet

INDEX_NAME = "index.json"
_FORMAT = 1
# Vectors that are read at once, where all are compared: 40 MiB at 1,280 numbers each.
_ROWS = 8192
# Vectors of so many bytes as float32 are held in memory where all are compared again and again: to convert 500 of 1,280
# numbers for each search takes 3 ms, and to compare them a tenth of that.
_HELD_BYTES = 128 * 1024 * 1024
# An index whose cells were learned of less than a third of its records learns them anew.
_GROWTH = 3
# Files that no index names, and that nobody has written to for so long, are of a run that was killed.
_ABANDONED_SEC = 24 * 3600
# What reading a damaged file of an index raises.
_DAMAGES = (ValueError, TypeError, RuntimeError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Contents:
    """What index.json says.

    Attributes:
      network: the fields that decide the embeddings.
      labels: the dictionary.
      shards: the SHA-256 of the shards, in the order of their rows.
      records: how many there are.
      size: of an embedding.
      files: the names of the files, by what they hold: "vectors", "photos" and maybe "cells".
      effort: of a query, if there are cells.
      learned_of: of how many records the cells were learned.
    """

    network: dict[str, Any]
    labels: tuple[str, ...]
    shards: tuple[str, ...]
    records: int
    size: int
    files: dict[str, str]
    effort: Effort | None
    learned_of: int


class PhotoIndex:
    """An index that answers.

    Attributes:
      records: how many photos it holds.
      effort: what a query does; None if it compares all photos.
      tag: 12 hexadecimal digits, which are others if a row may be another photo.
    """

    def __init__(self, folder: str, contents: _Contents, set_of_shard: Sequence[int]):
        """Opens its files.

        Raises:
          OSError, ValueError, TypeError, RuntimeError, KeyError, EOFError, zipfile.BadZipFile: a file is missing or
            damaged.
        """
        self.records = contents.records
        self.effort = contents.effort
        self.tag = hashlib.sha256(" ".join(contents.shards).encode()).hexdigest()[:12]
        self._labels = contents.labels
        path = {what: os.path.join(folder, name) for what, name in contents.files.items()}
        self._vectors = np.memmap(path["vectors"], np.float16, "r", shape=(contents.records, contents.size))
        with np.load(path["photos"], allow_pickle=False) as photos:
            self._uris, self._uri_splits = photos["uris"], photos["uri_splits"]
            self._label_ids, self._label_splits = photos["label_ids"], photos["label_splits"]
            self._digests, self._shards = photos["image_digests"], photos["shards"]
        if len(self._digests) != contents.records:
            raise ValueError("its files do not belong together")
        self._set_of_shard = set_of_shard
        self._held: np.ndarray | None = None
        self._cells = Cells.read(path["cells"]) if contents.effort is not None else None

    def describe(self, done: str, folder: str) -> str:
        """The index in words, for people.

        Args:
          done: what was done, as `open_index` says it.
          folder: where it lies.
        """
        words = f"index: {done}, {counted(self.records, 'photo')}, in {folder}"
        if self.effort is None:
            return f"{words}; a search compares all of them"
        found = f"{100 * self.effort.recall:.1f} % of the 10 nearest"
        return f"{words}; a search finds {found}, as measured on photos of the sets"

    def nearest(self, queries: np.ndarray, count: int, *, shows_progress: bool = True) -> list[list[NearPhoto]]:
        """The most similar photos of each query; see `ThroughShards.nearest`. Thread-safe.

        Args:
          queries: float32, shape [n, embedding_size].
          count: how many for each query.
          shows_progress: whether a search that takes long says so on standard error.
        """
        queries = unit_vectors(queries)
        if self._cells is not None and self.effort is not None and count <= self.effort.candidates // 2:
            candidates = self._cells.candidates(queries, self.effort)
            rows, similarities = rescored(queries, candidates, self._vectors, count)
        else:
            rows, similarities = _compared(self._compared_vectors(), queries, count, shows_progress=shows_progress)
        return [
            [self.photo(row, similarity) for row, similarity in zip(near, values, strict=True) if row >= 0]
            for near, values in zip(rows.tolist(), similarities.tolist(), strict=True)
        ]

    def _compared_vectors(self) -> np.ndarray:
        """All vectors: float32 in memory if they are few, else float16 in their file."""
        if self._held is None and 4 * self._vectors.size <= _HELD_BYTES:
            self._held = np.array(self._vectors, np.float32)
        return self._vectors if self._held is None else self._held

    def embedding_of(self, uri: str) -> np.ndarray:
        """The embedding of the record of a URI, at length 1; see `ThroughShards.embedding_of`."""
        wanted = uri.encode("utf-8", "surrogateescape")
        lengths = np.diff(self._uri_splits)
        for row in np.flatnonzero(lengths == len(wanted)).tolist():
            if self._uris[self._uri_splits[row] : self._uri_splits[row + 1]].tobytes() == wanted:
                return self._vectors[row].astype(np.float32)
        end = end_of(uri).encode("utf-8", "surrogateescape")
        for row in np.flatnonzero(lengths >= len(end)).tolist():
            stop = self._uri_splits[row + 1]
            if self._uris[stop - len(end) : stop].tobytes() == end:
                raise no_such_photo(uri, self.photo(row).uri)
        raise no_such_photo(uri, None)

    def photo(self, row: int, similarity: float = 1.0) -> NearPhoto:
        """The photo of a row, which is below `records`."""
        uri = self._uris[self._uri_splits[row] : self._uri_splits[row + 1]].tobytes()
        ids = self._label_ids[self._label_splits[row] : self._label_splits[row + 1]].tolist()
        return NearPhoto(
            similarity=min(similarity, 1.0),  # float16 and float32 round a little above it
            uri=uri.decode("utf-8", "surrogateescape"),
            labels=label_names(ids, self._labels),
            set_number=self._set_of_shard[int(self._shards[row])],
            digest=digest_text(self._digests[row].tobytes()),
            row=row,
        )


def require_index_folder(folder: str, *, flag: str = "index") -> None:
    """Refuses a folder that can hold no index, before any work is done. An index that is there may be read only.

    Raises:
      InputError: it belongs to something else, is a file, or cannot be written into.
    """
    if _read_contents(folder, flag) is None:
        require_writable(folder, flag=flag)


def open_index(folder: str, sets: Sequence[RecordSet], *, flag: str = "index") -> tuple[PhotoIndex, str]:
    """The index of some sets: the one in the folder, if it is of these sets; else it is extended or made anew.

    Args:
      folder: a local folder. It need not exist.
      sets: what is to be in the index. They agree in network and labels.
      flag: the option that named the folder, for the messages.

    Returns:
      The index, and what was done in words: "read", "made" or "extended".

    Raises:
      InputError: the folder cannot be written or belongs to something else, or a shard is damaged.
    """
    identity, labels = sets[0].manifest.backbone, sets[0].manifest.labels
    shards = shards_of(sets)
    known = _read_contents(folder, flag)
    if known is None:
        require_writable(folder, flag=flag)
    try:
        index = _opened(folder, known, sets)
        if index is not None and not _lacks(known, shards):
            return index, "read"
        with one_writer(folder):
            # Whoever had the lock before may have made what is wanted.
            known = _read_contents(folder, flag)
            index = _opened(folder, known, sets)
            if index is not None and known is not None:
                if not _lacks(known, shards):
                    return index, "read"
                new = [sha256 for sha256 in shards if sha256 not in known.shards]
                with contextlib.suppress(*_DAMAGES):
                    pieces = read_pieces(sets, without=frozenset(known.shards), what="reading the new records")
                    made = build(folder, pieces, [*known.shards, *new], identity, labels, base=known)
                    return PhotoIndex(folder, made, [shards[sha256] for sha256 in made.shards]), "extended"
            pieces = read_pieces(sets, what="reading the records for the index")
            made = build(folder, pieces, list(shards), identity, labels)
            return PhotoIndex(folder, made, list(shards.values())), "made"
    except OSError as error:
        raise InputError(f"--{flag}: cannot write the index into {folder} ({error.strerror or error}).") from error


def _opened(folder: str, known: _Contents | None, sets: Sequence[RecordSet]) -> PhotoIndex | None:
    """The index of a folder, if all that it holds is of some sets; None if it is another one, or damaged."""
    manifest, shards = sets[0].manifest, shards_of(sets)
    if known is None or known.network != manifest.backbone.network or known.labels != manifest.labels:
        return None
    if not set(known.shards) <= set(shards):
        return None
    try:
        return PhotoIndex(folder, known, [shards[sha256] for sha256 in known.shards])
    except (OSError, *_DAMAGES):
        return None


def _lacks(known: _Contents | None, shards: Mapping[str, int]) -> bool:
    """Whether an index lacks shards, or cells, since it was made without faiss."""
    if known is None:
        return True
    return len(set(known.shards)) < len(shards) or (known.effort is None and usable(known.records))


def build(
    folder: str,
    pieces: Iterable[RecordPiece],
    shards: Sequence[str],
    identity: BackboneIdentity,
    labels: tuple[str, ...],
    *,
    base: _Contents | None = None,
) -> _Contents:
    """Makes an index, or a larger one from an earlier one. The earlier files are removed at the end.

    Raises:
      InputError: a shard is damaged.
      OSError: a file cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    tag = secrets.token_hex(4)
    files = {"vectors": f"vectors-{tag}.f16", "photos": f"photos-{tag}.npz"}
    path = {what: os.path.join(folder, name) for what, name in {**files, "cells": f"cells-{tag}.faiss"}.items()}
    try:
        records = _write_photos(path, pieces, shards, folder, base)
        vectors = np.memmap(path["vectors"], np.float16, "r", shape=(records, identity.embedding_size))
        effort, learned_of = None, 0
        if usable(records):
            effort, learned_of = _make_cells(path["cells"], vectors, folder, base)
            files["cells"] = f"cells-{tag}.faiss"
        contents = _Contents(
            network=identity.network,
            labels=labels,
            shards=tuple(shards),
            records=records,
            size=identity.embedding_size,
            files=files,
            effort=effort,
            learned_of=learned_of,
        )
        earlier = _read_contents(folder, "index")
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(contents)}, indent=2, ensure_ascii=False)
        temporary = os.path.join(folder, f".{INDEX_NAME}-{tag}")
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text + "\n")
        os.replace(temporary, os.path.join(folder, INDEX_NAME))
    except BaseException:
        _remove(path.values())
        raise
    _remove_abandoned(folder, keep=files.values())
    if earlier is not None:
        _remove(os.path.join(folder, name) for name in earlier.files.values() if name not in files.values())
    return contents


def _remove_abandoned(folder: str, *, keep: Iterable[str]) -> None:
    """Removes the files of runs that were killed. A run that still makes an index there wrote to its files lately."""
    names = set(os.listdir(folder)) - set(keep)
    paths = [os.path.join(folder, name) for name in names if name.startswith(("vectors-", "photos-", "cells-"))]
    with contextlib.suppress(OSError):
        _remove(path for path in paths if time.time() - os.path.getmtime(path) > _ABANDONED_SEC)


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.remove(path)


def _write_photos(
    path: dict[str, str], pieces: Iterable[RecordPiece], shards: Sequence[str], folder: str, base: _Contents | None
) -> int:
    """Writes the files of vectors and photos. Returns how many records they hold."""
    parts: dict[str, list[np.ndarray]] = {}
    uri_lengths: list[np.ndarray] = []
    label_counts: list[np.ndarray] = []

    def take(**arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            parts.setdefault(name, []).append(array)

    shard_at = {sha256: number for number, sha256 in enumerate(shards)}
    if base is not None:
        shutil.copyfile(os.path.join(folder, base.files["vectors"]), path["vectors"])
        with np.load(os.path.join(folder, base.files["photos"]), allow_pickle=False) as photos:
            take(**{name: photos[name] for name in ("uris", "label_ids", "image_digests", "shards")})
            uri_lengths.append(np.diff(photos["uri_splits"]))
            label_counts.append(np.diff(photos["label_splits"]))
    with open(path["vectors"], "ab" if base is not None else "wb") as stream:
        for piece in pieces:
            stream.write(unit_vectors(piece.embeddings).astype(np.float16).tobytes())
            uris = [uri.encode("utf-8", "surrogateescape") for uri in piece.uris]
            uri_lengths.append(np.fromiter(map(len, uris), np.int64, len(uris)))
            label_counts.append(piece.label_counts)
            take(
                uris=np.frombuffer(b"".join(uris), np.uint8),
                label_ids=piece.label_ids.astype(np.int32),
                image_digests=piece.image_digests,
                shards=np.full(len(piece), shard_at[piece.shard], np.int32),
            )
    lengths, counts = np.concatenate(uri_lengths), np.concatenate(label_counts)
    whole: dict[str, Any] = {name: np.concatenate(found) for name, found in parts.items()}
    whole["uri_splits"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    whole["label_splits"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    np.savez(path["photos"], **whole)
    return len(lengths)


def _compared(
    vectors: np.ndarray, queries: np.ndarray, count: int, *, shows_progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    best = BestSoFar(queries, min(count, len(vectors)))
    saying = doing("comparing all photos", total=len(vectors), unit="photo")
    with saying if shows_progress else contextlib.nullcontext() as progress:
        for start in range(0, len(vectors), _ROWS):
            block = vectors[start : start + _ROWS].astype(np.float32, copy=False)
            best.offer(block, first_row=start)
            if progress is not None:
                progress.advance(len(block))
    return best.rows, best.similarities


def _make_cells(path: str, vectors: np.ndarray, folder: str, base: _Contents | None) -> tuple[Effort, int]:
    """Writes the cells of all vectors. Returns the effort of a query, and of how many records they were learned."""
    records = len(vectors)
    cells, start, learned_of = None, 0, records
    if base is not None and base.effort is not None and records < _GROWTH * base.learned_of:
        cells = Cells.read(os.path.join(folder, base.files["cells"]))
        start, learned_of = base.records, base.learned_of
    if cells is None:
        rows = np.unique(np.linspace(0, records - 1, min(SAMPLE, records)).astype(np.int64))
        cells = Cells.learned(vectors[rows].astype(np.float32))
    with doing("filling the cells of the index", total=records - start, unit="photo") as progress:
        for first in range(start, records, _ROWS):
            block = vectors[first : first + _ROWS].astype(np.float32)
            cells.add(block)
            progress.advance(len(block))
    tested = np.unique(np.linspace(0, records - 1, TESTED).astype(np.int64))
    with doing("measuring what the index finds"):
        near, _ = _compared(vectors, vectors[tested].astype(np.float32), TESTED_COUNT + 1)
        truth = np.stack([row[row != own][:TESTED_COUNT] for row, own in zip(near, tested, strict=True)])
        effort = measured(cells, vectors, truth, tested)
    cells.write(path)
    return effort, learned_of


def _read_contents(folder: str, flag: str) -> _Contents | None:
    """What the index in a folder says; None if there is none, or one that has to be made anew."""
    path = os.path.join(folder, INDEX_NAME)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            data = json.load(stream)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            if os.path.isdir(folder):
                ours = (".", "vectors-", "photos-", "cells-")
                others = [name for name in sorted(os.listdir(folder)) if not name.startswith(ours)]
                if others:
                    raise InputError(
                        f"--{flag}: the folder {folder} holds {others[0]} and no index. Name a folder of its own."
                    ) from None
        return None
    except NotADirectoryError:
        return None  # Whoever is to write says which part of the path is a file.
    except OSError as error:
        raise InputError(f"--{flag}: cannot read {path} ({error.strerror}).") from error
    except (ValueError, RecursionError):
        return None
    try:
        if data.pop("format") != _FORMAT:
            return None
        effort = data["effort"]
        contents = _Contents(
            **{
                **data,
                "labels": tuple(data["labels"]),
                "shards": tuple(data["shards"]),
                "effort": None if effort is None else Effort(**effort),
            }
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    if contents.effort is not None and not has_faiss():
        # The vectors are there, so it answers without cells.
        files = {what: name for what, name in contents.files.items() if what != "cells"}
        contents = dataclasses.replace(contents, effort=None, files=files)
    names = contents.files.values() if isinstance(contents.files, dict) else [None]
    return contents if all(isinstance(name, str) and "/" not in name for name in names) else None
