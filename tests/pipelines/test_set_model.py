"""A model of the states of a set, small enough to enumerate them all: who may delete what, and when.

An older set of two shards is replaced by a newer one whose shards have the same names. A command is a sequence of
single changes and may be killed before each of them, as often as one likes. The real code is held to the same promises
in `test_set_states.py`; here stands why the order of the steps is what it is: with another, a promise breaks.
"""

import dataclasses

import pytest

BLOCKS = (0, 1)


@dataclasses.dataclass(frozen=True)
class State:
    """What lies at the output: of the shards and the manifest, whose they are; None if there is none."""

    manifest: str | None = "old"
    shards: tuple[str | None, ...] = ("old", "old")
    parts: frozenset[int] = frozenset()
    definition: bool = False
    staged: bool = False  # Dead letters, report and manifest of the newer set.
    journal: bool = False

    def is_whole(self):
        return self.manifest is not None and set(self.shards) == {self.manifest}

    def can_be_finished(self):
        """Whether the journal gives the newer set without embedding anything."""
        there = all(block in self.parts or self.shards[block] == "new" for block in BLOCKS)
        return self.journal and self.staged and there


# The changes that finish a set, each as a function from state to state; in an order that a test may change.
STEPS = (
    "stage",
    "journal",
    "delete manifest",
    "place 0",
    "place 1",
    "write manifest",
    "delete journal",
    "delete the rest",
)


def change(state, step):
    if step.startswith("embed"):
        return dataclasses.replace(state, parts=state.parts | {int(step[-1])})
    if step.startswith("place"):
        block = int(step[-1])
        if block not in state.parts:
            return state  # Placed by the run before.
        shards = tuple("new" if index == block else shard for index, shard in enumerate(state.shards))
        return dataclasses.replace(state, shards=shards, parts=state.parts - {block})
    return dataclasses.replace(
        state,
        **{
            "define": {"definition": True},
            "stage": {"staged": True},
            "journal": {"journal": True},
            "delete manifest": {"manifest": state.manifest if state.manifest == "new" else None},
            "write manifest": {"manifest": "new"},
            "delete journal": {"journal": False, "definition": False},
            "discard the journal": {"journal": False},
            "delete the rest": {"staged": False, "parts": frozenset()},
        }[step],
    )


def steps_of_command(state, order):
    """What the command that replaces the set does, by what it finds; the same as `PreparedJob.start`."""
    steps = []
    if state.journal:
        if state.can_be_finished():
            return list(order[order.index("journal") + 1 :]) if "journal" in order else list(order)
        steps.append("discard the journal")
        state = change(state, "discard the journal")
    if state.manifest == "new" and state.is_whole():
        return [*steps, "delete journal", "delete the rest"]
    steps.append("define")
    steps += [f"embed {block}" for block in BLOCKS if block not in state.parts]
    return [*steps, *order]


def all_states(order):
    """Every state that is reached by any number of kills, and from which the command starts again."""
    seen, waiting = {State()}, [State()]
    while waiting:
        state = waiting.pop()
        for step in steps_of_command(state, order):
            state = change(state, step)
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    return seen


def broken_promises(order):
    """What does not hold in some state, in words."""
    broken = set()
    for state in all_states(order):
        if state.manifest is not None and not state.is_whole():
            broken.add("a set with a manifest is whole")
        if not state.is_whole() and not state.can_be_finished():
            broken.add("what was complete is not lost before its replacement is whole")
        end = state
        for step in steps_of_command(state, order):
            end = change(end, step)
        if not end.is_whole() or end.manifest != "new" or end.journal or end.parts or end.staged or end.definition:
            broken.add("the same command ends with the newer set and nothing else")
    return broken


def test_no_promise_is_broken_in_any_state():
    assert len(all_states(STEPS)) == 12
    assert broken_promises(STEPS) == set()


def moved(step, *, before):
    order = [other for other in STEPS if other != step]
    order.insert(order.index(before), step)
    return tuple(order)


@pytest.mark.parametrize(
    ("step", "before"),
    [
        ("delete manifest", "journal"),  # The older set goes, and nothing says how the newer one is made.
        ("place 0", "journal"),
        ("place 0", "delete manifest"),  # The older manifest names shards that are the newer set's.
        ("write manifest", "place 1"),
        ("delete journal", "place 1"),
        ("delete the rest", "place 1"),
    ],
)
def test_another_order_of_the_steps_breaks_a_promise(step, before):
    assert broken_promises(moved(step, before=before))
