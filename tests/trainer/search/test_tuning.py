from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.embedded_clusters import clusters, dataset, small_options
from trainer.evaluation.metrics import Measures
from trainer.search import cross_validation, tuning
from trainer.search.cross_validation import CrossValidation
from trainer.search.tuning import SEARCHED, tune
from trainer.training.loop import train_head


@pytest.fixture(scope="module")
def searched():
    """One search that several tests look at: options, the chosen ones, the account, what was said, who was held out."""
    lines: list[str] = []
    held_out: list[str] = []
    train, evaluation = clusters(48, 0, noise=1.5), clusters(40, 1, noise=1.5)
    evaluation = dataclasses.replace(evaluation, uris=np.array([f"eval {i}" for i in range(40)], dtype=object))
    options = small_options(max_steps=60, learning_rate=1e-5)

    def spy(train, held, *more, **named):
        held_out.append(held.uris[0].split()[0])
        return train_head(train, held, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "_FOLDS", 2)
        patch.setattr(cross_validation, "train_head", spy)
        chosen, account = tune(train, evaluation, options, trials=3, budget_sec=None, say=lines.append)
    return options, chosen, account, lines, held_out


@pytest.fixture
def stand_ins(monkeypatch):
    """No head is trained: the loss of settings is their learning rate, and above 1 they fail."""

    def judged(dataset, folds, options, *, hopeless):
        if options.learning_rate > 1:
            raise InputError("diverged. Lower --learning_rate.")
        losses = np.full(5, options.learning_rate) + np.arange(5) / 1e6
        so_far = CrossValidation(steps=8, losses=losses[:2], accuracies=1 - losses[:2], given_up=True)
        if hopeless(so_far):
            return so_far
        return CrossValidation(steps=8, losses=losses, accuracies=1 - losses, given_up=False)

    monkeypatch.setattr(tuning, "cross_validate", judged)
    monkeypatch.setattr(tuning, "_check", lambda *more: Measures(accuracy=0.5, loss=1.0))


def search(options, **more):
    given = {"trials": 2, "budget_sec": None, "say": lambda line: None, **more}
    return tune(clusters(40, 0), clusters(8, 1), options, **given)


def test_better_settings_than_the_given_ones_are_found(searched):
    options, chosen, account, _, _ = searched
    assert chosen.learning_rate > options.learning_rate
    assert account["gain"]["accuracy"] > 0.1
    assert account["eval_check"]["chosen"]["accuracy"] > account["eval_check"]["given"]["accuracy"] + 0.1
    assert {name: getattr(chosen, name) for name in SEARCHED} == {name: account["chosen"][name] for name in SEARCHED}
    assert chosen.max_steps == account["chosen"]["max_steps"] <= options.max_steps


def test_the_given_settings_and_a_linear_head_are_among_the_trials(searched):
    options, _, account, _, _ = searched
    by_trial = {row["trial"]: row["settings"] for row in account["table"]}
    assert by_trial[1] == {name: getattr(options, name) for name in SEARCHED}
    assert by_trial[2]["hidden_units"] == 0
    assert by_trial[2]["l2"] > 0


def test_the_table_is_ranked_by_the_rule_and_printed(searched):
    _, chosen, account, lines, _ = searched
    whole = [row for row in account["table"] if row["folds_run"] == account["folds"]]
    assert whole[0]["rank"] == 1
    assert "accuracy" in account["rule"]
    accuracies = [row["accuracy"]["mean"] for row in whole]
    assert accuracies[1:] == sorted(accuracies[1:], reverse=True)
    assert whole[0]["settings"]["hidden_units"] == chosen.hidden_units
    assert sum(line.startswith("trial ") for line in lines) == 3
    header = next(i for i, line in enumerate(lines) if line.split()[:1] == ["rank"])
    assert lines[header + 1].split()[0] == "1"
    assert f"{whole[0]['loss']['mean']:.4f}" in lines[header + 1]


def test_the_rule_of_the_ranks_and_better_given_settings_are_said(stand_ins, monkeypatch):
    lines: list[str] = []
    found = iter([Measures(accuracy=0.5, loss=1.0), Measures(accuracy=0.75, loss=0.8)])
    monkeypatch.setattr(tuning, "_check", lambda *more: next(found))
    _, account = search(small_options(learning_rate=0.5), say=lines.append)
    assert f"rank 1 is chosen by this rule: {account['rule']}" in lines
    assert lines[-1].startswith("the given settings were right for 2 more of the 8 eval examples than the chosen ones")


def test_the_account_is_json(searched):
    json.dumps(searched[2], allow_nan=False)


def test_evaluation_takes_no_part_in_the_choice(searched):
    held_out = searched[4]
    assert held_out == ["image"] * 6 + ["eval"] * 2


def test_no_trial_begins_after_the_budget(stand_ins):
    now = iter(range(0, 10_000, 5))
    _, account = search(small_options(), trials=50, budget_sec=18, clock_sec=lambda: next(now))
    # The clock is read at the start, before each trial but the first, and at both ends of each.
    assert len(account["table"]) == 2
    assert account["ended_by"] == "seconds"


def test_the_same_seed_searches_the_same(stand_ins):
    tables = [
        [row["settings"] for row in search(small_options(seed=seed), trials=12)[1]["table"]] for seed in (1, 1, 2)
    ]
    assert tables[0] == tables[1] != tables[2]


def test_the_hopeless_are_given_up_and_never_chosen(stand_ins):
    lines: list[str] = []
    chosen, account = search(small_options(learning_rate=2e-3), trials=12, say=lines.append)
    given_up = [row for row in account["table"] if row["folds_run"] == 2]
    assert given_up
    assert chosen.learning_rate == min(row["settings"]["learning_rate"] for row in account["table"])
    assert account["table"][-1] in given_up
    assert lines[-4].startswith("* given up")


def test_settings_that_diverge_are_a_row_without_numbers(stand_ins):
    chosen, account = search(small_options(learning_rate=100.0))
    assert chosen.learning_rate < 1
    failed = account["table"][-1]
    assert (failed["trial"], failed["loss"], failed["folds_run"]) == (1, None, 0)
    assert account["gain"] is None
    with pytest.raises(InputError, match="no settings could be trained with.*Lower --learning_rate"):
        search(small_options(learning_rate=100.0), trials=1)


def test_as_many_passes_over_all_examples_as_were_best_in_the_folds(stand_ins):
    chosen, _ = search(small_options(max_steps=60), trials=1)
    assert chosen.max_steps == 10  # 8 steps over four of five parts.
    chosen, _ = search(small_options(max_steps=9), trials=1)
    assert chosen.max_steps == 9
    chosen, _ = search(small_options(epochs=3, batch_size=10), trials=1)
    assert (chosen.max_steps, chosen.epochs) == (10, None)


def test_proposals_lie_in_the_space_and_follow_the_seed():
    draws = [
        [tuning._draw(np.random.default_rng(seed), linear=bool(seed % 2), l2_unit=1.0) for seed in range(40)]
        for _ in range(2)
    ]
    assert draws[0] == draws[1]
    for settings in draws[0]:
        options = tuning._with(small_options(), settings)
        assert options.hidden_units == 0 or 64 <= options.hidden_units <= 1024
        assert set(settings) == set(SEARCHED)


def test_sets_of_several_labels_are_searched_by_their_own_loss(monkeypatch):
    monkeypatch.setattr(tuning, "_FOLDS", 2)
    single = clusters(60, 0)
    both = dataset(
        single.embeddings.array, [[int(c), 4] if i % 3 else [int(c)] for i, c in enumerate(single.first_label_ids)], 5
    )
    both = dataclasses.replace(both, label_mode="multi")
    _, account = tune(both, both, small_options(max_steps=30), trials=1, budget_sec=None, say=lambda line: None)
    assert account["table"][0]["loss"]["mean"] < 0.6
    assert "loss" in account["rule"] and "accuracy" not in account["rule"]


def judged_trial(number, hidden_units, losses, accuracies):
    found = CrossValidation(steps=8, losses=np.array(losses), accuracies=np.array(accuracies), given_up=False)
    return tuning._Trial(number=number, settings={"hidden_units": hidden_units}, found=found, failure="", wall_sec=1.0)


def test_a_linear_head_stays_unless_another_is_better_by_more_than_the_error():
    linear = judged_trial(1, 0, [1.0, 1.1, 1.2], [0.5, 0.6, 0.7])
    lucky = judged_trial(2, 64, [0.8, 0.9, 1.0], [0.6, 0.5, 0.73])
    better = judged_trial(3, 64, [1.2, 1.3, 1.4], [0.6, 0.71, 0.8])
    assert [trial.number for trial in tuning._ranked([linear, lucky], "single")] == [1, 2]
    assert [trial.number for trial in tuning._ranked([linear, lucky, better], "single")] == [3, 2, 1]
    assert [trial.number for trial in tuning._ranked([linear, lucky, better], "multi")] == [2, 1, 3]
