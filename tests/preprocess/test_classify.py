import json
import os

import pytest

from configs.errors import InputError
from preprocess import classify, list_backbones
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.weights_files import PublishedFile
from tests.support.classifiers import jpeg

GRAPH = "../shared/models/mobilenet_v1_0.25_128/frozen_graph.pb"
DAISY = "../shared/data/flowers/photos/daisy/1031799732_e7f4008c03.jpg"
needs_graph = pytest.mark.skipif(not os.path.exists(GRAPH), reason="the shared graph is not here")


@needs_graph
def test_a_frozen_graph_names_what_photos_show(tmp_path, capsys):
    broken, missing = tmp_path / "x.jpg", tmp_path / "nix.jpg"
    broken.write_text("hello")
    photos = [DAISY, str(broken), str(missing), DAISY]
    assert classify.main(["--backbone", GRAPH, "--json", "--top_k", "2", *photos]) == 2
    printed, said = capsys.readouterr()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["image"] for line in lines] == [DAISY, DAISY] and lines[0] == lines[1]
    best, second = lines[0]["predictions"]
    assert (best["label"], best["id"]) == ("daisy", 986)
    assert best["score"] > 0.5 > second["score"]
    assert "not_an_image" in said and "not_found" in said and said.count("error: ") == 2


@needs_graph
def test_its_names_may_come_from_files(tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{number}:thing {number}\n" for number in range(1001)))
    assert classify.main(["--backbone", GRAPH, "--labels", str(names), "--top_k", "1", DAISY]) == 0
    assert "thing 986" in capsys.readouterr().out
    with pytest.raises(InputError, match="--labels: nowhere cannot be read"):
        classify.main(["--backbone", GRAPH, "--labels", "nowhere", DAISY])


@needs_graph
def test_logits_become_probabilities(capsys):
    logits = "MobilenetV1/Logits/SpatialSqueeze"
    for output in ([], ["--output_tensor", logits]):
        assert classify.main(["--backbone", GRAPH, "--json", *output, DAISY]) == 0
    first, second = (json.loads(line)["predictions"] for line in capsys.readouterr().out.splitlines())
    for one, other in zip(first, second, strict=True):
        assert one["id"] == other["id"] and one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_wrong_input(tmp_path):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(jpeg(0))
    for flags, words in (
        (["--top_k", "0"], "--top_k must be a whole number of at least 1"),
        (["--backbone", "resnet5"], "Did you mean 'resnet50'"),
        (["--weights", "random"], "random ones know no classes"),
        (["--scaling", "tf"], "scaling: belongs to a --backbone that is a file"),
    ):
        with pytest.raises(InputError, match=words):
            classify.main([*flags, str(photo)])


def test_only_the_file_with_the_classes_is_wanted(tmp_path, monkeypatch):
    def refuse(file):
        raise InputError(file.url.rpartition("/")[2])

    monkeypatch.setattr(PublishedFile, "check", refuse)
    with pytest.raises(InputError, match=r"^vgg16_weights_tf_dim_ordering_tf_kernels\.h5$"):
        classify.main(["--backbone", "vgg16", str(tmp_path / "a.jpg")])


def test_the_table_is_printed(capsys):
    assert list_backbones.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(ARCHITECTURES) + 1]] == list(ARCHITECTURES)
    (lite,) = [line.split() for line in lines if line.startswith("efficientnet_lite0 ")]
    assert lite == ["efficientnet_lite0", "224", "127,128", "1280", "1000", "yes", lite[6], "Apache-2.0"]
