"""Lists as other tools write them and folders as people name them, from `pipelines.embed` to what the trainer finds."""

import json
import tarfile
import unicodedata

import pytest

from configs.errors import InputError
from pipelines import embed
from preprocess.lists import unknown_labels
from preprocess.lists.tar_members import member_uri
from preprocess.storage.router import UriStorage
from tests.support.faulty_gcs import FaultyGcs
from tests.support.photos import write_photos
from trainer.data.photos import finder_of_sets
from trainer.data.record_sets import find_record_sets

pytestmark = pytest.mark.usefixtures("engine")


def embedded(folder, *flags, name="train", list_name="list.csv"):
    """Embeds a list, and returns what the skipped and the failed rows say, and the set as the trainer finds it."""
    argv = ["--input_path", f"{folder}/{list_name}", "--input_dict", f"{folder}/dict.txt", "--weights", "random"]
    assert embed.main([*argv, "--output_path", f"{folder}/out/{name}", *flags]) == 0
    ledgers = [
        [json.loads(line) for line in (folder / f"out/_{name}/{ledger}.jsonl").read_text().splitlines()]
        for ledger in ("skipped", "failed")
    ]
    (found,) = find_record_sets([f"{folder}/out/{name}*"], flag="train_data_paths")
    return *ledgers, found


@pytest.fixture
def make(tmp_path):
    def make(folder_name, content, list_name="list.csv"):
        folder = tmp_path / folder_name
        folder.mkdir()
        write_photos(folder, 4, side=40)
        (folder / "dict.txt").write_text("a\nb\n")
        (folder / list_name).write_text(content)
        return folder

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg"))


def test_a_table_of_tabs_with_a_header_and_an_index(make, tmp_path, capsys):
    folder = make("photos", "")
    first, second, *_ = names(folder)
    rows = [("", "file_name", "label", "split"), ("0", first, "a", "train"), ("1", second, "b", "val")]
    (folder / "list.csv").write_text("".join("\t".join(row) + "\n" for row in rows))
    skipped, failed, found = embedded(folder, "--rows_per_shard", "1")
    assert ([row["rule"] for row in skipped], failed, found.manifest.records) == (["header"], [], 2)
    said = capsys.readouterr().err
    assert f"note: {folder}/list.csv: read as: separated by tabs, the image in column 'file_name'" in said
    assert "column 'split' is not used: all rows go into one set" in said
    # The same command finds the set finished, and another format is another job.
    assert embedded(folder, "--rows_per_shard", "1")[2].manifest == found.manifest
    assert "list_formats" in (folder / "out/_train/report.json").read_text()


def test_a_parquet_list(make):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder = make("photos", "")
    pq.write_table(pa.table({"path": names(folder)[:2], "label": ["a", "x"]}), folder / "list.csv")
    skipped, failed, found = embedded(folder, "--unknown_labels", "skip")
    assert [(row["line"], row["rule"]) for row in skipped] == [(2, "unknown_label")]
    assert (failed, found.manifest.records) == ([], 1)


@pytest.mark.parametrize("folder_name", ["photos [2023]", "a,b", "100% of *", "_x"])
def test_folders_and_sets_of_any_name(make, folder_name):
    folder = make(folder_name, "")
    first, second, *_ = names(folder)
    uri = f"File://localhost{folder}/{second}".replace("%", "%25").replace(" ", "%20")
    (folder / "list.csv").write_text(f'"{first}",a\n"{uri}",b\n')
    skipped, failed, found = embedded(folder, name="_train")
    assert (skipped, failed, found.manifest.records) == ([], [], 2)
    # The second run finds the first one's set, and not that of another folder which matches the name as a pattern.
    assert embedded(folder, name="_train")[2].manifest == found.manifest


def test_every_path_flag_may_be_a_file_uri(make):
    folder = make("my photos", "")
    (folder / "list.csv").write_text(f"{names(folder)[0]},a\n")
    uri = f"file://{folder}".replace(" ", "%20")
    argv = ["--input_path", f"{uri}/list.csv", "--input_dict", f"{uri}/dict.txt", "--output_path", f"{uri}/out/train"]
    recipe = folder / "recipe.yaml"
    recipe.write_text("preprocess: {weights: random}\n")
    argv += ["--recipe", f"{uri}/recipe.yaml", "--embedding_cache", f"{uri}/cache"]
    assert embed.main(argv) == 0
    assert embed.main([*argv[:5], f"{uri}/out/eval", *argv[6:], "--against", f"{uri}/out/train"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == ["_eval", "_train"]
    assert (folder / "cache").is_dir()


def test_two_spellings_of_unicode_are_one_label(make):
    folder = make("photos", "")
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    assert composed != decomposed
    first, second, *_ = names(folder)
    (folder / "dict.txt").write_text(f"a\n{decomposed}\n")
    (folder / "list.csv").write_text(f"{first},{composed}\n{second},{decomposed},{composed}\n")
    skipped, failed, found = embedded(folder)
    assert (skipped, failed, found.manifest.records) == ([], [], 2)
    assert found.manifest.labels == ("a", decomposed)
    # A plain list leaves no entry: its jobs have the keys that earlier versions gave them.
    assert "list_formats" not in (folder / "out/_train/report.json").read_text()
    (folder / "dict.txt").write_text(f"{composed}\n{decomposed}\n")
    with pytest.raises(
        InputError, match=r"dict.txt:2: label .* stands on line 1 already, spelled with other code points"
    ):
        embedded(folder, "--overwrite")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "photos\\1.jpg",
            r"photos\1.jpg is a path of Windows, with backslashes. Here folders are separated by slashes",
        ),
        ("C:\\photos\\1.jpg", r"C:\photos\1.jpg is a path on a drive of Windows"),
    ],
)
def test_paths_of_windows(make, uri, words):
    folder = make("photos", f"{uri},a\n")
    with pytest.raises(InputError) as error:
        embedded(folder)
    assert words in str(error.value)
    assert "Write for example photos/1.jpg in the list" in str(error.value)


def test_one_windows_path_among_others_fails_with_a_hint(make):
    folder = make("photos", "")
    (folder / "list.csv").write_text(f"{names(folder)[0]},a\nphotos\\1.jpg,a\n")
    _, failed, _ = embedded(folder, "--max_failed_percent", "60")
    assert "a path of Windows?" in failed[0]["message"]


def test_a_backslash_in_the_name_of_a_file_is_a_character(make):
    folder = make("photos", "x\\y.png,a\n")
    (folder / names(folder)[0]).rename(folder / "x\\y.png")
    assert embedded(folder)[2].manifest.records == 1


def test_the_nearest_spelling_is_not_searched_for_every_row(make, monkeypatch):
    folder = make("photos", "")
    searched = []
    monkeypatch.setattr(unknown_labels, "did_you_mean", lambda label, names: searched.append(label) or "")
    rows = "".join(f"x{n}.png,label {n % 50}\n" for n in range(1000))
    (folder / "list.csv").write_text(f"{names(folder)[0]},a\n{rows}{names(folder)[1]},B\n")
    skipped, _, found = embedded(folder, "--unknown_labels", "skip")
    assert (len(skipped), found.manifest.records) == (1001, 1)
    assert searched == ["label 0", "label 1", "label 2"] * 2  # at the check, and in the run
    assert skipped[0]["message"] == "Label 'label 0' is not in the dictionary."
    assert skipped[-1]["message"] == "Label 'B' is not in the dictionary. Did you mean 'b'?"


def test_nothing_embedded_is_not_a_matter_of_the_limit(make):
    folder = make("photos", "no.png,a\nnone.png,b\n")
    with pytest.raises(InputError, match="None of 2 rows could be embedded") as error:
        embedded(folder, "--max_failed_percent", "100")
    assert "max_failed_percent" not in str(error.value)


def test_a_tar_shard_is_a_list(make, capsys):
    folder = make("photos", "")
    with tarfile.open(folder / "shard-0.tar", "w") as archive:
        for number, name in enumerate(names(folder)):
            (folder / f"{number}.cls").write_text("ab"[number % 2])
            archive.add(folder / name, f"{number}.png")
            archive.add(folder / f"{number}.cls", f"{number}.cls")
    skipped, failed, found = embedded(folder, list_name="shard-*.tar")
    assert (skipped, failed, found.manifest.records) == ([], [], 4)
    assert "shard-0.tar: read as: a tar archive of images, labels from cls" in capsys.readouterr().err
    # The images are those of the folder: the same digests, as the list of the files gives.
    (folder / "list.csv").write_text("".join(f"{name},a\n" for name in names(folder)))
    embedded(folder, "--against", f"{folder}/out/train", name="files")
    assert json.loads((folder / "out/_files/report.json").read_text())["shared_with"][0]["records"] == 4
    # The trainer finds the photos for its report.
    first = folder / names(folder)[0]
    with tarfile.open(folder / "shard-0.tar") as archive:
        member = archive.getmember("0.png")
    uri = member_uri("shard-0.tar", "0.png", offset=member.offset_data, num_bytes=member.size)
    assert finder_of_sets([found], ()).read(uri)[1] == first.read_bytes()
    assert finder_of_sets([found], (f"{folder}/out",)).read(uri) is None


def test_tar_shards_in_a_bucket(make, monkeypatch):
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    folder = make("photos", "")
    with tarfile.open(folder / "s.tar", "w") as archive:
        for name in names(folder):
            archive.add(folder / name, f"a/{name}")
    with FaultyGcs(buckets=["bucket"]) as gcs:
        for name, value in gcs.environment.items():
            monkeypatch.setenv(name, value)
        gcs.put("bucket", "shards/s.tar", (folder / "s.tar").read_bytes())
        argv = ["--input_path", "gs://bucket/shards/*.tar", "--input_dict", f"{folder}/dict.txt", "--weights", "random"]
        assert embed.main([*argv, "--output_path", f"{folder}/out/train"]) == 0
        assert json.loads((folder / "out/_train/report.json").read_text())["embedded"] == 4
        storage, raw = UriStorage(), (folder / "s.tar").read_bytes()
        uri = "gs://bucket/shards/s.tar"
        assert storage.read_part(uri, offset=512, num_bytes=7) == raw[512:519]
        assert storage.read_part(uri, offset=len(raw) - 3, num_bytes=7) == raw[-3:]
        assert storage.read_part(uri, offset=len(raw) + 3, num_bytes=7) == b""
        with pytest.raises(FileNotFoundError):
            storage.read_part("gs://bucket/none.tar", offset=0, num_bytes=7)
