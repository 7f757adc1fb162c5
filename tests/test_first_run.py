"""docs/first-run.md and docs/cloud.md: gcloud has the commands, the recipe is one, and what they name is there."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import re
import shutil

import pytest

from configs.cloud_roles import WORKER_ROLES, YOUR_ROLES
from configs.recipe import parse_recipe
from tests.support.page_commands import SCRIPTS, commands_of, given

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("docs/first-run.md", "docs/cloud.md")
FIRST_RUN = (ROOT / "docs" / "first-run.md").read_text()
COMMANDS = [words for page in PAGES for words in commands_of(page)]


def test_the_pages_have_the_commands_of_all_steps():
    programs = {words[0] for words in commands_of("docs/first-run.md")}
    assert programs == {"gcloud", "hugs", *SCRIPTS}
    assert len(COMMANDS) > 60


@functools.cache
def tree_of_gcloud():
    gcloud = shutil.which("gcloud")
    path = pathlib.Path(gcloud).resolve().parents[1] / "data" / "cli" / "gcloud_completions.py" if gcloud else None
    if path is None or not path.is_file():
        pytest.skip("gcloud is not installed with the tree of its commands")
    spec = importlib.util.spec_from_file_location("gcloud_completions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.STATIC_COMPLETION_CLI_TREE


def test_commands_and_flags_of_gcloud_exist():
    tree = tree_of_gcloud()
    for words in COMMANDS:
        if words[0] != "gcloud" or len(words) < 3:  # `gcloud ai` is a group of commands, and a word of a sentence.
            continue
        place, flags = tree, set(tree["flags"])
        for word in words[1:]:
            if word not in place["commands"]:
                break
            place = place["commands"][word]
            flags |= set(place["flags"])
        assert not place["commands"], f"{words}: no such command"
        # `--flatten`, `--help` and the like are of all commands, some of which the tree leaves out.
        unknown = given(words) - flags
        assert not unknown, f"{words}: {unknown}"


def test_the_recipe_of_the_page_is_one():
    (text,) = re.findall(r"(?ms)^```yaml\n(.*?)^```", FIRST_RUN)
    recipe = parse_recipe(text.encode(), where="first.yaml", default_name="first")
    assert (recipe.dataflow.max_workers, recipe.vertex.replicas, recipe.train.max_steps) == (1, 2, 20)


def test_the_probes_have_exactly_the_roles_of_the_table():
    (granted,) = re.findall(r"for role in (roles/dataflow\.developer .*?); do", FIRST_RUN.replace("\\\n", " "))
    assert set(granted.split()) == {role.name for role in YOUR_ROLES if role.on == "project"}
    (granted,) = re.findall(r"for role in (roles/dataflow\.worker .*?); do", FIRST_RUN)
    assert set(granted.split()) == {role.name for role in WORKER_ROLES if role.on == "project"}
    section = FIRST_RUN[FIRST_RUN.index("| taken away |") :].partition("\n\n")[0]
    taken = set(re.findall(r"(?m)^\| `(roles/[\w.]+)`", section)) - {"roles/storage.objectViewer"}
    # What only reads logs is refused nothing that the programs do.
    assert taken == {role.name for role in YOUR_ROLES} - {"roles/logging.viewer"}


def test_where_notes_go_is_there():
    table = FIRST_RUN[FIRST_RUN.index("| note |") :].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        where = row.rstrip(" |").rpartition(" | ")[2]
        paths = re.findall(r"`([\w./-]+/[\w.-]+)`", where)
        assert paths, row
        texts = [(ROOT / path).read_text() for path in paths]
        for name in re.findall(r"`(\w+)`", where):
            assert any(name in text for text in texts), f"{name} is not in {paths}"
        for heading in re.findall(r'"([^"]+)"', where):
            assert any(f"## {heading}" in text for text in texts), heading
