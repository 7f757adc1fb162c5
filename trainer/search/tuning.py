"""Searches a head's settings: each trial is a cross-validation on the training examples; a budget limits the trials."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from configs.activity import doing
from configs.counts import counted
from configs.errors import InputError
from trainer.data.dataset import EmbeddingDataset
from trainer.data.label_mode import LabelMode
from trainer.evaluation.metrics import Measures, measure
from trainer.options import SEARCHED, TrainingOptions
from trainer.search.cross_validation import CrossValidation, assign_folds, cross_validate, fit_for, sample_in_memory
from trainer.training.head import predict_logits
from trainer.training.loop import require_trainable

# With a thousand examples, cross-validation cannot separate good settings, and the highest accuracy is mostly chance.
# On real ImageNet embeddings (style, 8 classes, 5 splits), choosing it lost 0.020 ± 0.010 to logistic regression. So a
# linear head, which is a logistic regression, is preferred unless another is better by more than the error. Among
# equally good settings, the lowest loss decides.
_RULES = {
    "single": "highest cross-validated accuracy; within one standard error of it a linear head, then the lowest loss",
    # A whole set of labels is rarely right, so the accuracy says little.
    "multi": "lowest cross-validated loss; within one standard error of it a linear head",
}
# A trial uses the given optimizer or Adam, and no other: the ranges of the other settings are made for Adam.
_FOLDS = 5
_EVAL_EVERY_STEPS = 25
_PATIENCE = 5
# A trial is given up if, after two folds or more, its accuracy in each fold is lower than the best trial's and its loss
# exceeds the best trial's loss by this share. In measured searches, no such trial would have won.
_HOPELESS_SHARE = 0.1
_MIN_FOLDS_RUN = 2

Settings = dict[str, Any]


def _known_good(l2_unit: float) -> list[Settings]:
    """The settings that are tried before random ones.

    The first is multinomial logistic regression with a strong prior: on a thousand embeddings of difficult classes, few
    settings are better.
    """
    shared = {"batch_size": 100, "optimizer": "adam"}
    return [
        {
            "hidden_units": 0,
            "dropout": 0.0,
            "learning_rate": 3e-3,
            "l2": 5e-3 * l2_unit,
            "label_smoothing": 0.0,
            **shared,
        },
        {"hidden_units": 512, "dropout": 0.7, "learning_rate": 1e-3, "l2": 0.0, "label_smoothing": 0.1, **shared},
    ]


def _draw(random: np.random.Generator, *, linear: bool, l2_unit: float) -> Settings:
    """Draws settings at random from the whole search space."""

    def choose(*values: float) -> float:
        return values[int(random.integers(len(values)))]

    def between(low: float, high: float) -> float:
        return float(f"{math.exp(random.uniform(math.log(low), math.log(high))):.2g}")

    if linear:
        drawn = {
            "hidden_units": 0,
            "dropout": choose(0.0, 0.0, 0.3, 0.6),
            "learning_rate": between(1e-3, 3e-2),
            "l2": between(3e-4 * l2_unit, 3e-2 * l2_unit),
            "label_smoothing": choose(0.0, 0.0, 0.1),
        }
    else:
        drawn = {
            "hidden_units": choose(64, 128, 256, 512, 1024),
            "dropout": choose(0.3, 0.5, 0.7, 0.8),
            "learning_rate": between(3e-4, 5e-3),
            "l2": choose(0.0, between(1e-5 * l2_unit, 3e-3 * l2_unit)),
            "label_smoothing": choose(0.0, 0.1, 0.2),
        }
    return {**drawn, "batch_size": choose(50, 100, 200), "optimizer": "adam"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trial:
    """A trial: its number from 1, its settings, and the result of cross-validation or the reason why it failed."""

    number: int
    settings: Settings
    found: CrossValidation | None
    failure: str
    wall_sec: float

    @property
    def whole(self) -> bool:
        return self.found is not None and not self.found.given_up


def _ranked(trials: Sequence[_Trial], label_mode: LabelMode) -> list[_Trial]:
    """Sorts trials: first the chosen one, then the others by accuracy or loss, then given-up and failed ones."""

    def key(trial: _Trial) -> tuple[float, ...]:
        if trial.found is None:
            return (2,)
        loss, accuracy = float(trial.found.losses.mean()), float(trial.found.accuracies.mean())
        return (int(trial.found.given_up), *((-accuracy, loss) if label_mode == "single" else (loss,)))

    ranked = sorted(trials, key=key)
    if ranked and ranked[0].whole:
        equals = [trial for trial in ranked if trial.whole and _within_error(trial, ranked[0], label_mode)]
        chosen = min(equals, key=lambda trial: (trial.settings["hidden_units"] > 0, _mean_loss(trial)))
        ranked.remove(chosen)
        ranked.insert(0, chosen)
    return ranked


def _mean_loss(trial: _Trial) -> float:
    assert trial.found is not None
    return float(trial.found.losses.mean())


def _within_error(trial: _Trial, first: _Trial, label_mode: LabelMode) -> bool:
    """Whether `first` is better than `trial` by at most one standard error of their difference, paired by folds."""
    assert trial.found is not None and first.found is not None
    if label_mode == "single":
        worse = first.found.accuracies - trial.found.accuracies
    else:
        worse = trial.found.losses - first.found.losses
    return bool(worse.mean() <= worse.std(ddof=1) / len(worse) ** 0.5)


def _best(trials: Sequence[_Trial], label_mode: LabelMode) -> _Trial | None:
    best = next(iter(_ranked(trials, label_mode)), None)
    return best if best is not None and best.whole else None


def _propose(
    given: Settings, done: Sequence[_Trial], best: _Trial | None, random: np.random.Generator, *, l2_unit: float
) -> Settings:
    """The next settings: the given ones, the known good ones, then by turns random ones and variants of the best."""
    first = [given, *_known_good(l2_unit)]
    if len(done) < len(first):
        return first[len(done)]
    if best is None or len(done) % 2:
        return _draw(random, linear=bool(random.random() < 1 / 3), l2_unit=l2_unit)
    drawn = _draw(random, linear=best.settings["hidden_units"] == 0, l2_unit=l2_unit)
    return {name: drawn[name] if random.random() < 1 / 2 else best.settings[name] for name in SEARCHED}


def _with(options: TrainingOptions, settings: Settings) -> TrainingOptions:
    return dataclasses.replace(options, **settings)


def _final_steps(trial: _Trial, options: TrainingOptions, *, num_examples: int, num_folded: int) -> int:
    """The number of steps for all examples: as many epochs as were best for the part that a fold trains on."""
    assert trial.found is not None
    scaled = round(trial.found.steps * num_examples / (num_folded * (_FOLDS - 1) / _FOLDS))
    return max(1, min(scaled, _with(options, trial.settings).num_steps(num_examples)))


def tune(
    train: EmbeddingDataset,
    evaluation: EmbeddingDataset,
    options: TrainingOptions,
    *,
    trials: int,
    budget_sec: float | None,
    say: Callable[[str], None],
    clock_sec: Callable[[], float] = time.monotonic,
) -> tuple[TrainingOptions, dict[str, Any]]:
    """Searches the head's settings by stratified cross-validation on the training examples.

    The first trial uses the settings of `options`, the second is multinomial logistic regression. The number of steps
    is the one with the lowest mean loss over the folds, up to the limit in `options`. `evaluation` takes no part in the
    choice; the given and the chosen settings are measured on it at the end. Without a budget of seconds, the same data,
    options and seed give the same result on one machine.

    Args:
      train: the data to search on; at most 16,384 of its examples are used, held in memory.
      evaluation: the data to check the choice on.
      options: the options of the run; options that are not searched stay unchanged.
      trials: the largest number of trials; 1 or more.
      budget_sec: after this many seconds no further trial begins; the first always does. None for no limit.
      say: gets each line for people.
      clock_sec: a clock in seconds.

    Returns:
      The options to train with, and JSON. `rule`; `folds`; `examples`: how many were used; `ended_by`: "trials" or
      "seconds"; `wall_sec`; `table`: for each trial its rank, its settings, its steps, and the mean and deviation of
      loss and accuracy over the folds (null if training diverged), and `folds_run` (less than `folds` if the first
      folds were hopeless); `chosen`: the chosen settings; `gain`: how much better they are than the given ones in
      cross-validation, with its standard error over the folds; `eval_check`: loss and accuracy of both on `evaluation`.

    Raises:
      InputError: there are too few examples, or training failed with all settings.
    """
    started = clock_sec()
    require_trainable(train)
    sample = sample_in_memory(train, options)
    folds = assign_folds(sample, _FOLDS, seed=options.seed)
    random = np.random.default_rng([options.seed, 1])
    # The loss of several sigmoids is a mean over the classes, so the penalty is divided by their number too.
    l2_unit = 1 / len(train.labels) if train.label_mode == "multi" else 1.0
    given: Settings = {name: getattr(options, name) for name in SEARCHED}
    searching = dataclasses.replace(
        options, eval_every_steps=min(options.eval_every_steps, _EVAL_EVERY_STEPS), early_stopping=_PATIENCE
    )
    done: list[_Trial] = []
    ended_by = "trials"
    for number in range(trials):
        if number and budget_sec is not None and clock_sec() - started >= budget_sec:
            ended_by = "seconds"
            break
        best = _best(done, train.label_mode)
        settings = _propose(given, done, best, random, l2_unit=l2_unit)
        with doing(f"trial {number + 1} of {trials}: {_described(settings)}"):
            trial = _run_trial(number + 1, settings, best, sample, folds, searching, clock_sec)
        done.append(trial)
        say(f"trial {number + 1}/{trials}  {_outcome(trial)}  {_described(trial.settings)}  {trial.wall_sec:.1f} s")
    best = _best(done, train.label_mode)
    if best is None:
        raise InputError(f"--tune: no settings could be trained with. The given ones: {done[0].failure}")
    ranked = _ranked(done, train.label_mode)
    for line in _table_lines(ranked):
        say(line)
    say(f"rank 1 is chosen by this rule: {_RULES[train.label_mode]}")
    sizes = {"num_examples": len(train), "num_folded": int((folds >= 0).sum())}
    chosen = dataclasses.replace(
        _with(options, best.settings),
        max_steps=_final_steps(best, options, **sizes),
        epochs=None,
        eval_every_steps=searching.eval_every_steps,
    )
    with doing("measuring the chosen and the given settings on eval"):
        checks = {"chosen": _check(chosen.max_steps, train, evaluation, chosen)}
        if done[0].whole:
            checks["given"] = _check(_final_steps(done[0], options, **sizes), train, evaluation, options)
    for name, measures in checks.items():
        say(f"on eval, which took no part: {name} settings: loss {measures.loss:.4f}, accuracy {measures.accuracy:.4f}")
    if "given" in checks and checks["given"].accuracy > checks["chosen"].accuracy:
        more = round((checks["given"].accuracy - checks["chosen"].accuracy) * len(evaluation))
        say(
            f"the given settings were right for {more} more of the {counted(len(evaluation), 'eval example')} than the "
            "chosen ones; a few may be chance. To keep the given settings, train without --tune"
        )
    return chosen, {
        "rule": _RULES[train.label_mode],
        "folds": _FOLDS,
        "examples": len(sample),
        "ended_by": ended_by,
        "wall_sec": round(clock_sec() - started, 3),
        "table": [_row(rank, trial) for rank, trial in enumerate(ranked, start=1)],
        "chosen": {**best.settings, "max_steps": chosen.max_steps},
        "gain": _gain(done[0], best),
        "eval_check": {name: dataclasses.asdict(measures) for name, measures in checks.items()},
    }


def _run_trial(
    number: int,
    settings: Settings,
    best: _Trial | None,
    sample: EmbeddingDataset,
    folds: np.ndarray,
    options: TrainingOptions,
    clock_sec: Callable[[], float],
) -> _Trial:
    started = clock_sec()

    def hopeless(so_far: CrossValidation) -> bool:
        if best is None or best.found is None or len(so_far.losses) < _MIN_FOLDS_RUN:
            return False
        losses, accuracies = (of[: len(so_far.losses)] for of in (best.found.losses, best.found.accuracies))
        worse = (so_far.losses > (1 + _HOPELESS_SHARE) * losses) & (so_far.accuracies < accuracies)
        return bool(worse.all())

    try:
        found, failure = cross_validate(sample, folds, _with(options, settings), hopeless=hopeless), ""
    except InputError as error:  # Training diverged with these settings; with others it may not.
        found, failure = None, str(error)
    return _Trial(number=number, settings=settings, found=found, failure=failure, wall_sec=clock_sec() - started)


def _check(steps: int, train: EmbeddingDataset, evaluation: EmbeddingDataset, options: TrainingOptions) -> Measures:
    head = fit_for(steps, train, evaluation, options).head
    return measure(predict_logits(head, evaluation.embeddings.pieces()), evaluation)


def _gain(first: _Trial, best: _Trial) -> dict[str, float] | None:
    """How much better the best trial is than the first; None if the first has no complete result."""
    if not first.whole or first.found is None or best.found is None:
        return None
    gain = {}
    for name, differences in (
        ("loss", first.found.losses - best.found.losses),
        ("accuracy", best.found.accuracies - first.found.accuracies),
    ):
        gain[name] = float(differences.mean())
        gain[f"{name}_standard_error"] = float(differences.std(ddof=1) / len(differences) ** 0.5)
    return gain


def _row(rank: int, trial: _Trial) -> dict[str, Any]:
    found = trial.found
    return {
        "rank": rank,
        "trial": trial.number,
        "settings": trial.settings,
        "steps": found.steps if found else None,
        "folds_run": len(found.losses) if found else 0,
        "loss": {"mean": float(found.losses.mean()), "deviation": float(found.losses.std(ddof=1))} if found else None,
        "accuracy": (
            {"mean": float(found.accuracies.mean()), "deviation": float(found.accuracies.std(ddof=1))}
            if found
            else None
        ),
        "wall_sec": round(trial.wall_sec, 3),
    }


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _described(settings: Settings) -> str:
    return "  ".join(f"{name} {_shown(settings[name])}" for name in SEARCHED)


def _outcome(trial: _Trial) -> str:
    found = trial.found
    if found is None:
        return f"failed ({trial.failure})"
    left_out = f" (given up after {counted(len(found.losses), 'fold')})" if found.given_up else ""
    return f"loss {found.losses.mean():.4f}  accuracy {found.accuracies.mean():.4f}{left_out}"


def _table_lines(ranked: Sequence[_Trial]) -> list[str]:
    """The table of all trials: mean ± deviation over the folds."""
    headings = ("rank", "loss", "accuracy", "steps", *SEARCHED)
    rows: list[tuple[str, ...]] = [headings]
    for rank, trial in enumerate(ranked, start=1):
        found = trial.found
        if found is None:
            judged = ("failed", "", "")
        else:
            mark = "*" if found.given_up else ""
            judged = (
                f"{found.losses.mean():.4f} ± {found.losses.std(ddof=1):.4f}{mark}",
                f"{found.accuracies.mean():.4f} ± {found.accuracies.std(ddof=1):.4f}{mark}",
                str(found.steps),
            )
        rows.append((str(rank), *judged, *(_shown(trial.settings[name]) for name in SEARCHED)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    if any(trial.found is not None and trial.found.given_up for trial in ranked):
        lines.append("* given up after some of the folds, so not to be compared with the others")
    return lines
