from __future__ import annotations

import os

import pytest

from configs.errors import InputError
from insight.pages.html_page import json_for_script
from insight.pages.output_folder import OutputFolder


def test_files_are_written_whole_and_never_replaced_unasked(tmp_path):
    folder = OutputFolder(str(tmp_path / "new" / "out"), ["a.csv", "b.html"], overwrite=False)
    folder.write("a.csv", "ä\n")
    assert (tmp_path / "new" / "out" / "a.csv").read_bytes() == "ä\n".encode()
    with pytest.raises(InputError, match=r"--output_path: .*/a\.csv is there already\. Pass --overwrite"):
        OutputFolder(folder.path(""), ["b.html", "a.csv"], overwrite=False)
    OutputFolder(folder.path(""), ["b.html"], overwrite=False)
    OutputFolder(folder.path(""), ["a.csv"], overwrite=True).write("a.csv", b"2")
    assert (tmp_path / "new" / "out" / "a.csv").read_bytes() == b"2"


def test_what_cannot_be_written_is_one_line(tmp_path):
    folder = OutputFolder(str(tmp_path / "out"), ["a"], overwrite=False)
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="--output_path: cannot write"):
        folder.write("a", b"")


def test_a_place_where_no_folder_can_be_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, place in (("file", "file"), ("file/out/deeper", "file"), ("link/out", "link")):
        with pytest.raises(InputError, match=rf"--output_path: .*/{place} is a file, so .* cannot be a folder"):
            OutputFolder(str(tmp_path / path), ["a"], overwrite=True)
    (tmp_path / "out" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--output_path: .*/out/a is a folder, and a file is to be written there"):
        OutputFolder(str(tmp_path / "out"), ["a"], overwrite=True)
    (tmp_path / "closed").mkdir(mode=0o500)
    if not os.access(tmp_path / "closed", os.W_OK):  # It is for root.
        with pytest.raises(InputError, match=r"--output_path: this user may not write into .*/closed"):
            OutputFolder(str(tmp_path / "closed" / "out"), ["a"], overwrite=True)


def test_json_in_a_page_cannot_end_its_script():
    text = json_for_script({"uri": "</script><!--\u2028&"})
    assert not {"<", ">", "&", "\u2028"} & set(text)
