"""The other views of an image in a record: the last feature of the record, after those of a record with one view."""

from __future__ import annotations

from preprocess.records.wire_format import decode_varint, encode_field, field_tag

# float, (number of views - 1) x embedding_size numbers: views 1, 2 ... in order. View 0 is the feature `embedding`.
VIEWS_FEATURE = "view_embeddings"

# Field number of FloatList in tensorflow/core/example/feature.proto.
_FLOAT_LIST = 2
_FIELD_1 = field_tag(1)[0]


class ViewsLayout:
    """Where the views stand in a record whose features are in alphabetical order, for one number of floats."""

    def __init__(self, num_floats: int):
        """Takes the number of floats in all views but view 0."""
        self._num_bytes = 4 * num_floats
        floats = encode_field(_FLOAT_LIST, encode_field(1, bytes(self._num_bytes)))
        entry = encode_field(1, encode_field(1, VIEWS_FEATURE.encode()) + encode_field(2, floats))
        self._before_floats = entry[: len(entry) - self._num_bytes]

    def split(self, data: bytes, start: int, end: int) -> tuple[bytes, int]:
        """Splits the record `data[start:end]`.

        Returns:
          The same record without its views, and the position of the views' first float in `data`. The record is empty
          if the views are not its last feature.
        """
        first_float = end - self._num_bytes
        entry = first_float - len(self._before_floats)
        try:
            length, at = decode_varint(data, start + 1)
        except IndexError:
            return b"", first_float
        if (
            data[start] != _FIELD_1
            or at + length != end
            or entry < at
            or not data.startswith(self._before_floats, entry)
        ):
            return b"", first_float
        return encode_field(1, data[at:entry]), first_float
