"""What the page is told: the words and colours of the recipe or of the model."""

from __future__ import annotations

import httpx
import pytest

from configs.page import PageOptions
from serving.page_files import page_settings
from tests.support.answer_models import NETWORK
from trainer.export.model_info import ModelInfo


@pytest.fixture
def settings_of():
    def settings_of(labels, page):
        info = ModelInfo(labels=labels, backbone=NETWORK, head_digest="sha256:00")
        return page_settings(page, info, max_body_bytes=10)

    return settings_of


def colours(settings):
    return [label["colour"] for label in settings["labels"]]


def test_nobody_says_what_is_good_but_the_recipe(settings_of):
    labels = tuple("abcdefgh")
    settings = settings_of(labels, PageOptions())
    assert settings["title"] == "What is in this photo?"
    assert [label["text"] for label in settings["labels"]] == list(labels)
    assert not {"green", "red", "orange"} & set(colours(settings))
    assert len(set(colours(settings)[:5])) == 5


def test_what_the_recipe_names_has_its_words_and_colours_and_no_other_has_the_same(settings_of):
    page = PageOptions(title="Edible?", texts={"b": "good to eat"}, colours={"b": "green", "c": "blue"})
    settings = settings_of(("a", "b", "c", "d"), page)
    assert [label["text"] for label in settings["labels"]] == ["a", "good to eat", "c", "d"]
    assert colours(settings) == ["purple", "green", "blue", "teal"]


@pytest.mark.usefixtures("with_extra", "with_tiny_network")
def test_the_page_comes_with_the_model_and_the_recipe_of_the_server_wins(tmp_path):
    from tests.support.serving import LABELS, export_tiny_model, running_server

    page = PageOptions(title="A hug?", texts={LABELS[0]: "yes"}, colours={LABELS[0]: "green"})
    model_dir = export_tiny_model(str(tmp_path / "model"), page=page)
    with running_server(model_dir=(model_dir,)) as server:
        told = httpx.get(f"{server.url}/page/settings.json").json()
        assert (told["title"], told["labels"][0]) == ("A hug?", {"name": LABELS[0], "text": "yes", "colour": "green"})
        assert told["labels"][1]["text"] == LABELS[1]
    with running_server(PageOptions(title="Mine"), model_dir=(model_dir,)) as server:
        told = httpx.get(f"{server.url}/page/settings.json").json()
        assert (told["title"], told["labels"][0]["text"]) == ("Mine", LABELS[0])
