"""Reads tables of Parquet with Arrow, which comes with Beam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from configs.errors import InputError
from preprocess.lists.values import texts_of

_BATCH_ROWS = 8192


def _open(stream: BinaryIO, list_path: str) -> Any:
    try:
        import pyarrow.parquet as pq  # here: few lists need it
    except ImportError as error:
        raise InputError(
            f"{list_path}: Parquet needs the package pyarrow, which is not installed ({error}). Install it, or write "
            "the list as CSV."
        ) from error
    try:
        stream.seek(0)
        return pq.ParquetFile(stream)
    except Exception as error:  # Arrow raises errors of its own.
        raise InputError(f"{list_path}: not a whole Parquet file ({' '.join(str(error).split())}).") from error


def schema_names(stream: BinaryIO, list_path: str) -> list[str]:
    """The names of the columns of texts, numbers or lists of these. Raises InputError if it is no Parquet file."""
    import pyarrow.types as kinds

    def is_simple(kind: Any) -> bool:
        if kinds.is_list(kind) or kinds.is_large_list(kind):
            return is_simple(kind.value_type)
        if kinds.is_dictionary(kind):
            return is_simple(kind.value_type)
        known = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating, kinds.is_boolean)
        return any(is_kind(kind) for is_kind in known)

    return [field.name for field in _open(stream, list_path).schema_arrow if is_simple(field.type)]


def read_cells(stream: BinaryIO, names: Sequence[str], rows: int) -> Iterator[tuple[str, list[list[str]]]]:
    """The texts of the first rows, by column."""
    table = next(_open(stream, "").iter_batches(batch_size=rows, columns=list(names)), None)
    for at, name in enumerate(names):
        values = table.column(at).to_pylist() if table is not None else []
        yield name, [texts_of(value) for value in values]


def read_rows(stream: BinaryIO, names: Sequence[str], list_path: str) -> Iterator[dict[str, Any]]:
    """The rows of some columns, in order, in bounded memory. Raises InputError if the file is damaged."""
    try:
        for batch in _open(stream, list_path).iter_batches(batch_size=_BATCH_ROWS, columns=list(names)):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{list_path}: damaged Parquet ({' '.join(str(error).split())}).") from error
