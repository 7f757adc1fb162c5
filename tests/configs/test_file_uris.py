import pytest

from configs.file_uris import local_path_of, path_argument


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///p/a.jpg", "/p/a.jpg"),
        ("FILE:///p/a.jpg", "/p/a.jpg"),
        ("file://localhost/p/a.jpg", "/p/a.jpg"),
        ("file://LocalHost/p/a.jpg", "/p/a.jpg"),
        ("file:/p/a.jpg", "/p/a.jpg"),
        ("file:///p/a%20b%5B1%5D.jpg", "/p/a b[1].jpg"),
        ("file:///p/%C3%A9.jpg", "/p/é.jpg"),
        ("file:///p/100%.jpg", "/p/100%.jpg"),
        ("file://photos/a.jpg", "photos/a.jpg"),
        ("file://localhost.jpg", "localhost.jpg"),
        ("file.jpg", "file.jpg"),
        ("file:a.jpg", "file:a.jpg"),
        ("gs://b/a%20b.jpg", "gs://b/a%20b.jpg"),
        ("/p/a%20b.jpg", "/p/a%20b.jpg"),
        ("", ""),
    ],
)
def test_local_paths(uri, path):
    assert local_path_of(uri) == path_argument(uri) == path


def test_what_is_there_by_its_very_name_is_meant(tmp_path):
    (tmp_path / "a%20b").mkdir()
    (tmp_path / "a%20b" / "x.csv").touch()
    (tmp_path / "s%20t-00000-of-00001.tfrecord").touch()
    assert local_path_of(f"file://{tmp_path}/a%20b/x.csv") == f"{tmp_path}/a%20b/x.csv"
    assert local_path_of(f"file://{tmp_path}/a%20b/y.csv") == f"{tmp_path}/a b/y.csv"
    # A flag may name what is not there yet, or be a pattern.
    assert path_argument(f"file://{tmp_path}/a%20b/new/train") == f"{tmp_path}/a%20b/new/train"
    assert path_argument(f"file://{tmp_path}/s%20t*") == f"{tmp_path}/s t*"
    assert path_argument(f"file://{tmp_path}/s%20t") == f"{tmp_path}/s%20t"
    assert path_argument(f"file://{tmp_path}/c%20d/train") == f"{tmp_path}/c d/train"
    assert local_path_of(f"file://{tmp_path}/%00") == f"{tmp_path}/\0"
