"""`hugs why` of a photo that stands in derived lists and in tables of our own programs."""

import pytest

from configs import written_tables
from configs.csv_text import csv_text
from tests.pipelines.diagnosis.test_thirty_faults import ask, folder, rows_of, run, time_enough, write_list

__all__ = ["ask", "folder", "time_enough"]
DAISY = "../photos/daisy/0.png"


def test_a_corrected_list_and_the_lists_of_another_folder_do_not_hide_that_a_photo_is_embedded(folder, ask):
    run()
    corrected = [f"{DAISY},rose", *rows_of(12)[1:]]
    write_list(folder, corrected, "train-corrected")
    (folder / "data/train-corrected.csv.corrections.jsonl").write_text("{}\n")
    (folder / "data-2").mkdir()
    (folder / "data-2/train.csv").write_text("".join(f"{row}\n" for row in rows_of(12)))
    first, text = ask("photos/daisy/0.png")
    assert first == f"{DAISY}: it is embedded, in out/preproc/train"
    assert "data/train-corrected.csv: hugs relabel wrote this corrected list, and no set is made of it" in text
    assert "data-2/train.csv: no set is made of it" in text


def test_a_model_is_measured_on_what_it_has_seen_only_where_both_sets_hold_it(folder, ask):
    write_list(folder, [f"{DAISY},daisy"], "eval")
    run()
    first, _ = ask("photos/daisy/0.png")
    assert first == f"{DAISY}: it is embedded, in out/preproc/train"
    run(name="eval")
    first, _ = ask("photos/daisy/0.png")
    assert "in their sets out/preproc/train and out/preproc/eval, so a model of them is measured on what it" in first


@pytest.mark.parametrize(
    ("program", "columns"),
    [
        ("next", written_tables.NEXT_COLUMNS),
        ("drift", written_tables.DRIFT_COLUMNS),
        ("twins", written_tables.TWIN_COLUMNS),
        ("map", written_tables.MAP_COLUMNS),
        ("audit", written_tables.SUSPECT_COLUMNS),
    ],
)
def test_tables_are_no_lists(folder, ask, program, columns):
    run()
    rows = [[uri, "ab" * 16, *["7"] * (len(columns) - 2)] for uri in (DAISY, "new/alone.png")]
    (folder / "table.csv").write_text(csv_text(columns, rows))
    first, text = ask("photos/daisy/0.png")
    assert first == f"{DAISY}: it is embedded, in out/preproc/train"
    assert f"table.csv:2, of hugs {program}: {columns[2]} '7'" in text
    first, text = ask("new/alone.png")
    assert first == "new/alone.png: is in no list and no set that was found, only in tables: table.csv"
    assert ask("table.csv:3")[0] == f"table.csv: is no list of photos, but a table of hugs {program}"
    assert "no list" not in ask("data/train.csv:1")[0]


def test_corrections_and_answers_are_no_lists():
    from preprocess.lists.corrections import COLUMNS

    assert written_tables.writer_of(COLUMNS) == "corrections of labels"
    assert written_tables.writer_of(["image_uri", "label", "score", "confident"]) == "hugs predict_all"
    assert written_tables.writer_of(["image_uri", "label"]) is None
