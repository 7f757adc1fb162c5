import pytest

from configs.errors import InputError
from preprocess.lists.labels import LabelDict, parse_label_dict


def test_ids_are_positions_and_blank_lines_take_none():
    labels = parse_label_dict(b"\xef\xbb\xbfhugs\r\n\r\n not-hugs \r\n\xc3\xa9t\xc3\xa9", where="dict.txt")
    assert labels.names == ("hugs", "not-hugs", "été")
    assert labels.ids == {"hugs": 0, "not-hugs": 1, "été": 2}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "dict.txt: no label"),
        (b"\n  \n", "dict.txt: no label"),
        (b"a\n\nb\na\n", "dict.txt:4: label 'a' stands on line 1 already"),
        (b"a\n\xff\xfe\n", "dict.txt:2: not UTF-8 (byte 0xff)"),
    ],
)
def test_what_is_wrong_with_a_dictionary_is_said_in_one_line(raw, words):
    with pytest.raises(InputError) as error:
        parse_label_dict(raw, where="dict.txt")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dictionary_compares_by_its_names():
    assert LabelDict(("a", "b")) == LabelDict(("a", "b")) != LabelDict(("b", "a"))
