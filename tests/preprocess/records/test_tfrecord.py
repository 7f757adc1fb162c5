import tensorflow as tf

from preprocess.records.tfrecord import frame_record


def test_tensorflow_reads_the_container(tmp_path):
    records = [b"", b"x", bytes(range(256)) * 100]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(frame_record, records)))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == records
