import hashlib
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import InputError
from configs.printed_commands import program_command
from preprocess.lists.detect import notes
from preprocess.lists.labels import LabelDict
from preprocess.lists.list_format import PLAIN
from preprocess.lists.opened_list import open_list, reopen_list
from preprocess.lists.rows import parse_rows
from preprocess.lists.tar_members import parse_member

LABELS = LabelDict(("daisy", "rose", "tulip"))


def read(raw, labels=LABELS, unknown_labels="fail"):
    """The format of a list, and its rows as a worker reads them, from the start of the bytes."""
    raw = raw.encode() if isinstance(raw, str) else raw
    scanned, found, _ = open_list(io.BytesIO(raw), list_path="t.csv", labels=labels)
    arguments = {"list_path": "t.csv", "labels": labels, "unknown_labels": unknown_labels, "list_format": found}
    checked = list(parse_rows(scanned, **arguments))
    content, _, hashing = reopen_list(io.BytesIO(raw), found, list_path="t.csv")
    rows = list(parse_rows(content, **arguments))
    assert [(row.uri, row.label_ids, row.line) for row in rows] == [
        (row.uri, row.label_ids, row.line) for row in checked
    ]
    if found.kind != "tar":
        assert hashing.sha256 == hashlib.sha256(raw).hexdigest()
    return found, rows


def embedded(rows):
    return [(row.uri, row.label_ids) for row in rows if row.outcome is None]


AB = [("a.jpg", (0,)), ("b.jpg", (1,))]


@pytest.mark.parametrize(
    ("raw", "how"),
    [
        ("a.jpg\tdaisy\nb.jpg\trose\n", "separated by tabs, the image in column 1, labels in the columns after it"),
        ("a.jpg;daisy\r\nb.jpg;rose\r\n", "separated by semicolons, the image in column 1"),
        ('"a.jpg"\t"daisy"\n"b.jpg"\t"rose"\n', "separated by tabs, the image in column 1"),
        ("a.jpg|daisy\nb.jpg|rose\n", "separated by vertical bars, the image in column 1"),
        ("sep=;\na.jpg;daisy\nb.jpg;rose\n", "separated by semicolons, the image in column 1"),
        ("sep=,\r\na.jpg,daisy\r\nb.jpg,rose\r\n", "separated by commas, the image in column 1"),
        ("image;label\na.jpg;daisy\nb.jpg;rose\n", "separated by semicolons, the image in column 'image'"),
        ("filename\tclass\na.jpg\tdaisy\nb.jpg\trose\n", "separated by tabs, the image in column 'filename'"),
        ("label,image\ndaisy,a.jpg\nrose,b.jpg\n", "the image in column 'image', labels in 'label'"),
        (",file_name,label\n0,a.jpg,daisy\n1,b.jpg,rose\n", "the image in column 'file_name', labels in the columns"),
        ("Unnamed: 0,path,species\n7,a.jpg,daisy\n9,b.jpg,rose\n", "not used: 'Unnamed: 0'"),
        ("0,a.jpg,daisy\n1,b.jpg,rose\n", "the image in column 2, labels in the columns after it"),
        ("daisy,a.jpg\nrose,b.jpg\n", "the image in column 2, labels in 1"),
        ("image,label,width,height\na.jpg,daisy,640,480\nb.jpg,rose,1,2\n", "not used: 'width', 'height'"),
        ("image,label,class_name\na.jpg,0,daisy\nb.jpg,1,rose\n", "labels in 'class_name', not used: 'label'"),
        ("id,image_path,label\n0,a.jpg,daisy\n1,b.jpg,rose\n", "the image in column 'image_path'"),
        ("image_id,label,source\na.jpg,daisy,2019\nb.jpg,rose,2020\n", "the image in column 'image_id'"),
        ("filename,daisy,rose,tulip\na.jpg,1,0,0\nb.jpg,0,1,0\n", "a column for each of 3 labels"),
        ("image,daisy,rose\na.jpg,True,False\nb.jpg,False,True\n", "a column for each of 2 labels"),
        ('{"image":"a.jpg","daisy":1,"rose":0}\n{"image":"b.jpg","daisy":0,"rose":1}\n', "for each of 2 labels"),
        ("a.jpg;daisy;\nb.jpg;rose;\n", "separated by semicolons"),
        ("filename,width,class,xmin\na.jpg,640,daisy,1\nb.jpg,640,rose,5\n", "not used: 'width', 'xmin'"),
        ('"","image","label"\n"1","a.jpg","daisy"\n"2","b.jpg","rose"\n', "not used: ''"),
        ('{"file_name": "a.jpg", "label": "daisy"}\n{"file_name": "b.jpg", "label": "rose"}\n', "JSON lines"),
        ('{"image": "a.jpg", "labels": ["daisy"]}\n\n{"image": "b.jpg", "labels": ["rose"]}\n', "labels in 'labels'"),
        (
            "\n".join(
                json.dumps(
                    {
                        "imageGcsUri": uri,
                        "classificationAnnotation": {"displayName": label},
                        "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"},
                    }
                )
                for uri, label in (("a.jpg", "daisy"), ("b.jpg", "rose"))
            ),
            "labels in 'classificationAnnotation.displayName'",
        ),
        (
            '{"imageGcsUri": "a.jpg", "classificationAnnotations": [{"displayName": "daisy"}]}\n'
            '{"imageGcsUri": "b.jpg", "classificationAnnotations": [{"displayName": "rose"}]}\n',
            "labels in 'classificationAnnotations.displayName'",
        ),
    ],
)
def test_lists_of_other_tools_are_read_and_it_is_said_how(raw, how):
    found, rows = read(raw)
    assert embedded(rows) == AB
    (note, *_) = notes(found)
    assert how in note
    assert len(rows) == len(raw.splitlines())  # Every line is accounted for.


@pytest.mark.parametrize(
    "raw",
    [
        "a.jpg,daisy\nb.jpg,rose\n",
        "image_uri,label\na.jpg,daisy\nb.jpg,rose\n",
        "file_name,label\na.jpg,daisy\nb.jpg,rose\n",
        "FilePath,Class\na.jpg,daisy\nb.jpg,rose\n",
        "image name,class label\r\na.jpg,daisy\r\nb.jpg,rose\r\n",
        "img,label,label\na.jpg,daisy,\nb.jpg,rose,\n",
        "image,label\na.jpg,daisy,\nb.jpg,,rose\n",
        "file_name,text\na.jpg,daisy\nb.jpg,rose\n",
        '\ufeff"image","label"\n"a.jpg","daisy"\n"b.jpg","rose"\n',
        " Image , Label \na.jpg, daisy\nb.jpg, rose\n",
        "Id,Label\na.jpg,daisy\nb.jpg,rose\n",
    ],
)
def test_rows_of_image_and_labels_are_the_plain_format(raw):
    found, rows = read(raw)
    assert embedded(rows) == AB
    assert found.is_plain
    assert not list(notes(found))


@pytest.mark.parametrize(
    ("raw", "uris"),
    [
        ("a;b.jpg,daisy\n", ["a;b.jpg"]),
        ("a;daisy.jpg\nb;rose.jpg\n", ["a;daisy.jpg", "b;rose.jpg"]),
        ('"a.jpg;daisy",rose\n', ["a.jpg;daisy"]),
        ("a.jpg\nb c.jpg\n", ["a.jpg", "b c.jpg"]),
        ("{a}.jpg,daisy\n", ["{a}.jpg"]),
        ("[1].jpg,daisy\n", ["[1].jpg"]),
        ("photo,daisy\nb.jpg,rose\n", ["photo", "b.jpg"]),
        ("daisy,rose\nrose,tulip\n", ["daisy", "rose"]),
        ("train,daisy\ntest,rose\n", ["train", "test"]),
        ("image.jpg,daisy\n", ["image.jpg"]),
        ("image_uri,first,second\na.jpg,daisy,rose\n", ["a.jpg"]),
        ("image,label,other\na.jpg,daisy,rose\n", ["a.jpg"]),
        ("", []),
    ],
)
def test_what_could_be_rows_of_image_and_labels_stays_so(raw, uris):
    found, rows = read(raw)
    assert found.is_plain
    assert [row.uri for row in rows if row.outcome is None] == uris
    if "other" in raw or "second" in raw:
        assert rows[1].label_ids == (0, 1)


def test_import_files_of_vertex_ai():
    raw = "TRAIN,gs://b/a.jpg,daisy\nvalidation,gs://b/b.jpg,rose,tulip\n,gs://b/c.jpg\nUNASSIGNED,gs://b/d.jpg,rose\n"
    found, rows = read(raw)
    assert embedded(rows) == [
        ("gs://b/a.jpg", (0,)),
        ("gs://b/b.jpg", (1, 2)),
        ("gs://b/c.jpg", ()),
        ("gs://b/d.jpg", (1,)),
    ]
    assert [line.split(" ")[0] for line in notes(found)] == ["read", "ML_USE"]


def test_a_column_that_names_the_split_is_spoken_of():
    found, rows = read("image,label,split\na.jpg,daisy,train\nb.jpg,rose,val\n")
    assert embedded(rows) == AB
    assert "column 'split' is not used: all rows go into one set" in list(notes(found))[-1]


def parquet(**columns):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    raw = io.BytesIO()
    pq.write_table(pa.table(columns), raw)
    return raw.getvalue()


def test_parquet_rows():
    found, rows = read(parquet(path=["a.jpg", "b.jpg", None], label=["daisy", "rose", "rose"], width=[1, 2, 3]))
    assert embedded(rows) == AB
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[2].outcome.reason == "no_uri"
    assert "Parquet, the image in column 'path', labels in 'label', not used: 'width'" in next(notes(found))
    _, rows = read(parquet(path=["a.jpg", "b.jpg"], label=[["daisy"], ["rose"]]))
    assert embedded(rows) == AB


def tar(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


@pytest.mark.parametrize(
    ("sidecars", "source"),
    [
        ([("0.cls", b"daisy"), ("1.cls", b"rose\n")], "cls"),
        ([("0.txt", b"daisy\nrose"), ("1.txt", b"rose")], "txt"),
        ([("0.json", b'{"label": "daisy"}'), ("1.json", b'{"label": "rose"}')], "json.label"),
        ([("0.txt", b"a caption"), ("1.txt", b"another")], None),
        ([], None),
    ],
)
def test_a_tar_shard_is_a_list_of_its_images(sidecars, source):
    members = sorted([("0.jpg", b"first"), ("1.jpg", b"second"), *sidecars])
    raw = tar(members)
    found, rows = read(raw)
    assert (found.kind, found.labels) == ("tar", (source,) if source else ())
    assert f"labels from {source}" in next(notes(found)) or source is None
    assert [row.uri.split("@")[0] for row in rows] == ["t.csv#0.jpg", "t.csv#1.jpg"]
    if source:
        assert [row.label_ids[-1] for row in rows] == [1 if source == "txt" else 0, 1]
    for row, content in zip(rows, (b"first", b"second"), strict=True):
        _, offset, num_bytes = parse_member(row.uri.replace("t.csv", "t.tar"))
        assert raw[offset : offset + num_bytes] == content


def test_a_tar_of_class_folders():
    found, rows = read(tar([("photos/daisy/a.jpg", b"1"), ("photos/daisy/._a.jpg", b"x"), ("photos/rose/b.PNG", b"2")]))
    assert found.labels == ("folder",)
    assert [row.label_ids for row in rows] == [(0,), (1,)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (tar([("0.jpg", b"x"), ("0.cls", b"3")]), "its .cls files hold classes such as '3', which are not in the dict"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PK\x03\x04xx", "an Excel workbook"),
        ("image,label\n".encode("utf-16"), "is UTF-16. Save it as UTF-8"),
        (b"\xff\xd8\xff\xe0", f"is a JPEG image. Name a list of images here; `{program_command('ingest')}` makes"),
        (b"\0" * 257 + b"ustar\x0000" + b"\0" * 248, "not a whole tar archive"),
        (tar([("0.txt", b"x")]), "a tar archive without an image"),
        (tar([("0.jpg", b"x" * 2000), ("1.jpg", b"x" * 2000)])[:4000], "not a whole tar archive"),
        (b"PAR1xxxx", "not a whole Parquet file"),
        ('{\n "images": []\n}\n', "a JSON document, and not one JSON object on each line"),
        ('[{"file_name": "a.jpg"}]', "a JSON document"),
        ('{"file_name": "a.jpg"}\nnot json\n', "t.csv:2: not JSON"),
        ('{"file_name": "a.jpg"}\n[1]\n', "t.csv:2: not a JSON object"),
        ('{"url": "a.jpg", "path": "b.jpg"}\n', "'url', 'path' may all name the image"),
        ('{"caption": "daisy"}\n', "none of them names the image"),
        ("a.jpg;dasy\nb.jpg;rse\n", "separated by semicolons, but 'dasy' is not in the dictionary"),
        ("a.jpg\tdasy\n", "separated by tabs, but 'dasy' is not in the dictionary"),
        ("a.jpg 0\nb.jpg 1\n", "separated by spaces, but '0' is not in the dictionary, which names labels and does"),
        ("a.jpg daisy\nb.jpg rose\n", "separated by spaces. Correct"),
        ("foto,klasse\na.jpg,daisy\n", "t.csv:1: Label 'klasse' is not in the dictionary. If the first line names"),
        ("a.jpg,0\n", "The dictionary names labels and does not number them"),
        ("a.jpg,daisy|rose\n", "It holds 2 labels: write each of them into a column of its own"),
        ('"a.jpg,daisy"\n"b.jpg,rose"\n', "the whole row stands in quotes"),
        ("image_name,tags\na.jpg,daisy rose\n", "It holds 2 labels"),
        ("id,breed\n000bec,daisy\n", "none of them names the image"),
        ("{}\n", "the columns are none"),
        ("path,url,label\na.jpg,http://x/a.jpg,daisy\n", "'path', 'url' may all name the image"),
        ("label,image\nx,a.jpg\n", "t.csv:2: Label 'x' is not in the dictionary"),
    ],
)
def test_what_is_not_certain_is_one_line_that_names_what_was_found(raw, words):
    with pytest.raises(InputError) as error:
        read(raw)
    assert words in str(error.value)
    assert str(error.value).startswith("t.csv")
    assert "\n" not in str(error.value)


def test_cells_beyond_the_header_are_failures_and_not_lost():
    _, rows = read("image,label,width\n" + "a.jpg,daisy,640\n" * 250 + "b.jpg,rose,1,2\n")
    assert rows[-1].outcome.reason == "too_many_cells"
    _, rows = read("image,daisy,rose\n" + "a.jpg,1,0\n" * 250 + "b.jpg,2,0\n")
    assert rows[-1].outcome.reason == "bad_cell"


def test_rows_beyond_the_sample_are_read_in_the_same_format():
    found, rows = read("a.jpg;daisy\n" * 50_000)
    assert len(embedded(rows)) == 50_000
    assert found.delimiter == ";"


def test_a_missing_value_of_pandas_is_no_label():
    _, rows = read('{"path": "a.jpg", "label": NaN}\n{"path": "b.jpg", "label": "rose"}\n')
    assert embedded(rows) == [("a.jpg", ()), ("b.jpg", (1,))]
    with pytest.raises(InputError, match=r"pandas writes '1' so if other cells of the column are empty"):
        read("a.jpg,1.0\n", labels=LabelDict(("1", "2")))


@given(
    st.lists(
        st.lists(st.sampled_from(["", "a.jpg", "daisy", "x", "image", "label", "0", "1", '"', "TRAIN"]), max_size=4)
    ),
    st.sampled_from([",", "\t", ";", "|", " ", "{"]),
)
def test_any_table_is_rows_or_one_clear_line(table, delimiter):
    raw = "".join(delimiter.join(cells) + "\n" for cells in table)
    try:
        _, rows = read(raw, unknown_labels="skip")
    except InputError as error:
        assert str(error).startswith("t.csv")
    else:
        assert len(rows) == len(table) or '"' in raw


@given(st.binary(max_size=300), st.sampled_from([b"", b"PAR1", b'{"image":"a"}\n', b"sep=;\n"]))
def test_any_bytes_are_rows_or_one_clear_line(raw, start):
    try:
        read(start + raw, unknown_labels="skip")
    except InputError as error:
        assert str(error).startswith("t.csv")
        assert "\n" not in str(error)


def test_the_plain_format_is_the_default():
    assert PLAIN.is_plain
    assert read("a.jpg,daisy\n")[0] == PLAIN
