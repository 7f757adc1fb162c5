from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile

import numpy as np
import pytest

from configs.errors import InputError
from insight.relabel import main
from tests.support.written_sets import COLOURS, write_record_set

HEADER = "image_uri,image_sha256,action,label,was,by,when\n"


@pytest.fixture
def folder(tmp_path):
    """A list of four photos with its dictionary."""
    (tmp_path / "dict.txt").write_text("\n".join(COLOURS) + "\n")
    (tmp_path / "list.csv").write_text("a.jpg,red\nb.jpg,green\nc.jpg,blue\nd.jpg,red,green\n")
    return tmp_path


def run(folder, corrections, *flags, output="right.csv"):
    (folder / "corrections.csv").write_text(HEADER + corrections)
    status = main(
        [
            *("--input_path", f"{folder}/list.csv", "--input_dict", f"{folder}/dict.txt"),
            *("--corrections", f"{folder}/corrections.csv", "--output_path", f"{folder}/{output}", *flags),
        ]
    )
    assert status == 0
    ledger = (folder / f"{output}.corrections.jsonl").read_text().splitlines()
    return (folder / output).read_text(), [json.loads(line) for line in ledger]


def test_labels_change_rows_go_and_each_is_in_the_ledger(folder, capsys):
    corrected, ledger = run(
        folder,
        "a.jpg,,change,blue | green,red,Ann,now\nb.jpg,,remove,,green,,\nc.jpg,,change,blue,,,\nd.jpg,,keep,,,,\n",
        *("--by", "Bob"),
    )
    assert corrected == "a.jpg,blue,green\nc.jpg,blue\nd.jpg,red,green\n"
    assert [(one["image_uri"], one["action"], one["was"], one["is"], one["by"]) for one in ledger] == [
        ("a.jpg", "change", ["red"], ["blue", "green"], "Ann"),
        ("b.jpg", "remove", ["green"], None, "Bob"),
        ("c.jpg", "change", ["blue"], ["blue"], "Bob"),
    ]
    assert [(one["list_line"], one["line"]) for one in ledger] == [(1, 2), (2, 3), (3, 4)]
    assert "4 rows: 1 label changed, 1 row removed, 1 label right already" in capsys.readouterr().out


def test_with_record_sets_photos_are_found_by_content_under_another_name(folder, capsys):
    prefix = write_record_set(
        f"{folder}/preproc/train",
        np.zeros((4, 3), np.float32),
        [[0], [1], [2], [0]],
        contents=[b"a", b"b", b"c", None],
        uris=[f"{folder}/{name}.jpg" for name in "abcd"],
    )
    digest = hashlib.sha256(b"b").hexdigest()
    corrected, ledger = run(
        folder, f"once/other.jpg,{digest},change,red,,,\ngone.jpg,,remove,,,,\n", "--data_paths", prefix
    )
    assert "b.jpg,red\n" in corrected and len(ledger) == 1 and ledger[0]["image_sha256"] == digest[:32]
    printed = capsys.readouterr()
    assert "1 correction of" in printed.err and "line 3 (gone.jpg)" in printed.err


def test_relative_photos_of_a_list_that_moves_keep_their_place(folder):
    corrected, _ = run(folder, "a.jpg,,change,blue,,,\n", output="new/right.csv")
    assert corrected.splitlines()[0] == f"{folder}/a.jpg,blue"


@pytest.mark.parametrize(
    ("list_path", "output", "moved"),
    [
        ("data/list.csv", "right.csv", ["my photos/a.jpg", "data/b.jpg"]),
        ("data/list.csv", "other/right.csv", ["../my photos/a.jpg", "../data/b.jpg"]),
        ("data/list.csv", "data/right.csv", ["../my photos/a.jpg", "b.jpg"]),
        ("data/list.csv", "data/../data/right.csv", ["../my photos/a.jpg", "b.jpg"]),
        ("data/list.csv", "{here}/right.csv", ["{here}/my photos/a.jpg", "{here}/data/b.jpg"]),
        ("link/list.csv", "right.csv", ["{here}/link/../my photos/a.jpg", "link/b.jpg"]),
        ("data/list.csv", "link/right.csv", ["{here}/data/../my photos/a.jpg", "{here}/data/b.jpg"]),
    ],
)
def test_a_list_in_another_folder_names_the_same_photos_by_short_paths(tmp_path, monkeypatch, list_path, output, moved):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "other", "deep/inner", "my photos", "deep/my photos"):
        os.makedirs(name)
    os.symlink("deep/inner", "link")
    always = ["https://example.com/c.jpg", "/d.jpg"]
    with open(list_path, "w") as stream:
        stream.write("".join(f"{uri},red\n" for uri in ("../my photos/a.jpg", "b.jpg", *always)))
    with open("dict.txt", "w") as stream:
        stream.write("red\n")
    with open("corrections.csv", "w") as stream:
        stream.write(HEADER + "b.jpg,,keep,,,,\n")
    output = output.format(here=tmp_path)
    flags = ["--input_path", list_path, "--input_dict", "dict.txt", "--corrections", "corrections.csv"]
    assert main([*flags, "--output_path", output]) == 0
    with open(output) as stream:
        written = [line.removesuffix(",red\n") for line in stream]
    assert written == [uri.format(here=tmp_path) for uri in moved] + always
    for uri, before in zip(written, ("../my photos/a.jpg", "b.jpg"), strict=False):
        places = (
            os.path.realpath(os.path.join(os.path.dirname(path), found))
            for path, found in ((output, uri), (list_path, before))
        )
        assert len(set(places)) == 1


def test_wrong_input_is_one_line(folder):
    cases = [
        ("a.jpg,,change,purple,,,\n", (), "label 'purple' is not in the dictionary"),
        ("a.jpg,,remove,,,,\n", ("--output_path", f"{folder}/"), "--output_path: must name a file, not a folder"),
        ("a.jpg,,remove,,,,\n", ("--corrections", f"{folder}/gone.csv"), "--corrections: cannot read"),
        ("a.jpg,,remove,,,,\n", ("--input_path", f"{folder}/gone.csv"), "--input_path: cannot read"),
        ("a.jpg,,remove,,,,\n", ("--input_dict", f"{folder}/gone.txt"), "--input_dict: cannot read"),
        ("a.jpg,,remove,,,,\n", ("--data_paths", f"{folder}/gone*"), "--data_paths"),
    ]
    for corrections, flags, message in cases:
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            run(folder, corrections, *flags)
        assert "\n" not in str(caught.value)
    run(folder, "a.jpg,,remove,,,,\n")
    with pytest.raises(InputError, match=r"right\.csv is there already"):
        run(folder, "a.jpg,,remove,,,,\n")
    run(folder, "a.jpg,,remove,,,,\n", "--overwrite")
    (folder / "list.csv").write_text("a.jpg,red\n,green\n")
    with pytest.raises(InputError, match=r"list\.csv:2"):
        run(folder, "a.jpg,,remove,,,,\n", "--overwrite")


def _jsonl(path):
    path.write_text('{"image": "a.jpg", "label": "red"}\n{"image": "b c.jpg", "label": "green"}\n')
    return ["a.jpg", "b c.jpg"]


def _parquet(path):
    table = pytest.importorskip("pyarrow").table({"image_uri": ["a.jpg", "b c.jpg"], "label": ["red", "green"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, path)
    return ["a.jpg", "b c.jpg"]


def _tar(path):
    with tarfile.open(path, "w") as archive:
        for name, content in (("a.jpg", b"1"), ("a.cls", b"red"), ("b c.jpg", b"22"), ("b c.cls", b"green")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return ["list.tar#a.jpg@512+1", "list.tar#b c.jpg@2560+2"]


@pytest.mark.parametrize(("name", "write"), [("list.jsonl", _jsonl), ("list.parquet", _parquet), ("list.tar", _tar)])
def test_lists_of_other_formats_become_a_corrected_csv(folder, name, write, capsys):
    first, second = write(folder / name)
    prefix = write_record_set(  # as embed makes it of the list: it knows what is in the files
        f"{folder}/preproc/train",
        np.zeros((2, 3), np.float32),
        [[0], [1]],
        contents=[b"a", b"b"],
        uris=[first, second],
    )
    corrections = f"{first},,change,blue,,Ann,\nother.jpg,{hashlib.sha256(b'b').hexdigest()},remove,,,,\n"
    flags = ("--input_path", f"{folder}/{name}")
    corrected, ledger = run(folder, corrections, *flags, "--data_paths", prefix)
    assert corrected == f"{first},blue\n" and len(ledger) == 2 and not capsys.readouterr().err
    moved, _ = run(folder, corrections, *flags, output="new/right.csv")
    assert moved == f"{folder}/{first},blue\n{folder}/{second},green\n"
    assert "1 correction of" in capsys.readouterr().err  # nobody said what is in the files
