from trainer.arguments import split_paths, split_texts


def test_commas_separate_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_paths(["a*,b*", " c , ,d"]) == ("a*", "b*", "c", "d")
    assert split_paths(["gs://b/a,gs://b/c"]) == ("gs://b/a", "gs://b/c")
    assert split_paths(None) == split_paths([","]) == ()
    assert split_texts(["a,b", "c,"]) == ("a", "b", "c")


def test_a_comma_in_a_name_that_is_there_belongs_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a,b, c [2]"
    (folder / "_train").mkdir(parents=True)
    (folder / "train-00000-of-00001.tfrecord").touch()
    glob, prefix = "a,b, c [2]/train*", "a,b, c [2]/train"
    assert split_paths([glob]) == (glob,)
    assert split_paths([f"x*,{glob},{prefix},y*"]) == ("x*", glob, prefix, "y*")
    uri = f"file://{tmp_path}/a,b,%20c%20%5B2%5D/train*"
    assert split_paths([f"{uri},x"]) == (uri, "x")
