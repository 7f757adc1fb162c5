import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from preprocess.records.example import encode_example, feature_spec


@given(
    uri=st.text(max_size=200),
    size=st.integers(1, 300),
    ids=st.lists(st.integers(0, 2**40), max_size=5),
)
def test_tensorflow_reads_back_what_was_encoded(uri, size, ids):
    uri = uri.encode("utf-8", "ignore").decode()
    embedding = np.random.RandomState(size).standard_normal(size).astype(np.float32)
    raw = encode_example(image_uri=uri, embedding=embedding, label_ids=ids)
    example = tf.train.Example.FromString(raw)
    assert example.features.feature["image_uri"].bytes_list.value == [uri.encode()]
    assert list(example.features.feature["label"].int64_list.value) == ids
    np.testing.assert_array_equal(example.features.feature["embedding"].float_list.value, embedding)


def test_the_feature_spec_reads_records_with_none_one_and_many_labels():
    records = [
        encode_example(image_uri=f"{ids}.jpg", embedding=np.full(8, len(ids), np.float32), label_ids=ids)
        for ids in [[], [3], [0, 2]]
    ]
    parsed = tf.io.parse_example(tf.constant(records), feature_spec(8))
    assert parsed["label"].to_list() == [[], [3], [0, 2]]
    assert parsed["embedding"].shape == (3, 8)
    assert parsed["image_uri"].numpy().tolist() == [b"[].jpg", b"[3].jpg", b"[0, 2].jpg"]


def test_the_schema_is_that_of_the_published_sample():
    raw = encode_example(image_uri="a", embedding=np.ones(2, np.float32), label_ids=[1])
    kinds = {
        name: feature.WhichOneof("kind") for name, feature in tf.train.Example.FromString(raw).features.feature.items()
    }
    assert kinds == {"image_uri": "bytes_list", "embedding": "float_list", "label": "int64_list"}
