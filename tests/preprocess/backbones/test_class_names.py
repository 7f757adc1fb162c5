import pytest

from configs.errors import InputError
from preprocess.backbones.class_names import class_names, imagenet_classes

MAP = b"n00004475\torganism, being\nn01440764\ttench fish\nn11939491\tdaisy\n"
PROTO = b"""# -*- protobuf -*-
entry {
  target_class: 449
  target_class_string: "n01440764"
}
entry {
  target_class: 1
  target_class_string: "n11939491"
}
entry {
  target_class: 2
  target_class_string: "n99999999"
}
"""


def test_the_list_has_imagenet_s_classes_in_their_order():
    classes = imagenet_classes()
    assert len(classes) == len({synset for synset, _ in classes}) == 1000
    assert [synset for synset, _ in classes] == sorted(synset for synset, _ in classes)
    assert (classes[0], classes[985]) == (("n01440764", "tench, Tinca tinca"), ("n11939491", "daisy"))


def test_the_number_of_classes_says_whether_there_is_a_background():
    assert class_names(1000)[985] == "daisy"
    assert class_names(1001)[:2] == ["background", "tench, Tinca tinca"] and class_names(1001)[986] == "daisy"
    with pytest.raises(InputError, match="has 7 classes, so they are not ImageNet's"):
        class_names(7)


def test_the_files_of_2015_are_told_apart_by_their_content():
    both = [("a.txt", MAP), ("b.txt", PROTO)]
    for files in (both, both[::-1]):
        names = class_names(1008, files)
        assert (names[449], names[1], names[2], names[0]) == ("tench fish", "daisy", "class 2", "class 0")
        assert len(names) == 1008
    # With the numbers alone, the names are ours; with the names alone, the numbers are.
    assert class_names(1008, [("x", PROTO)])[449] == "tench, Tinca tinca"
    assert class_names(1000, [("x", MAP)])[0] == "tench fish"
    with pytest.raises(InputError, match="name class 449, and the network has 100 classes"):
        class_names(100, [("x", PROTO)])


def test_a_plain_list():
    assert class_names(2, [("x", "\ufeffröse\ntulip\n\n".encode())]) == ["röse", "tulip"]
    assert class_names(2, [("x", b"0:background\n1:tench, Tinca tinca\n")]) == ["background", "tench, Tinca tinca"]
    assert class_names(2, [("x", b"1:a\n2:b\n")]) == ["1:a", "2:b"]
    for content, words in ((b"a\n", "names 1 classes, and the network has 2"), (b"\n", "is empty"), (b"\xff", "UTF-8")):
        with pytest.raises(InputError, match=words):
            class_names(2, [("x", content)])
