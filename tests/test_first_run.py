"""docs/first-run.md and docs/cloud.md: commands and flags exist, the recipe is one, and what they name is there."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from configs.cloud_roles import WORKER_ROLES, YOUR_ROLES
from configs.printed_commands import PROGRAMS
from configs.recipe import parse_recipe

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("docs/first-run.md", "docs/cloud.md")
FIRST_RUN = (ROOT / "docs" / "first-run.md").read_text()
# The modules whose flags a script takes, before and after "--".
SCRIPTS = {
    "./hugs_preproc.sh": (("pipelines.preproc", "pipelines.embed"), ()),
    "./hugs_train.sh": (("cloud.train",), ("trainer.task",)),
    "./hugs_deploy.sh": (("cloud.deploy",), ()),
}
# A command of one of these, up to what ends it in the shell.
_COMMAND = re.compile(r"(?:^|(?<=[\s(;`$]))((?:gcloud|hugs|\./hugs_\w+\.sh) [^\n;|&`]*)")


def commands_of(page):
    """The words of each command in a page's blocks and tables, with the variables of the shell as they are."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    parts = [part for language, part in re.findall(r"(?ms)^```(\w*)\n(.*?)^```", text) if not language]
    parts += re.findall(r"`((?:gcloud|hugs|\./hugs_\w+\.sh) [^`\n]*)`", text)
    for part in parts:
        for command in _COMMAND.findall(part):
            yield shlex.split(re.sub(r"\$\([^)]*\)|\)$", "X", command).replace("[", "").replace("]", ""), comments=True)


COMMANDS = [words for page in PAGES for words in commands_of(page)]


@functools.cache
def flags_of(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return frozenset(re.findall(r"(?<![\w-])--\w[\w-]*", done.stdout))


def given(words):
    return {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}


def test_the_pages_have_the_commands_of_all_steps():
    programs = {words[0] for words in commands_of("docs/first-run.md")}
    assert programs == {"gcloud", "hugs", *SCRIPTS}
    assert len(COMMANDS) > 60


def test_flags_of_our_programs_exist():
    for words in COMMANDS:
        program, *rest = words
        if program == "gcloud":
            continue
        split = rest.index("--") if "--" in rest else len(rest)
        before, after = SCRIPTS[program] if program in SCRIPTS else ((PROGRAMS[rest[0]][0],), ())
        known = {flag for module in before for flag in flags_of(module)} | {"--sample"}
        assert given(rest[:split]) <= known, words
        assert given(rest[split:]) <= {flag for module in after for flag in flags_of(module)}, words


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
