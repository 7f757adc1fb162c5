"""Every state that a kill can leave, walked: who may delete what, and which command leads out.

The real code runs on storage in memory and is killed before each single change. Held for every state:

- what was complete is not lost before its replacement is whole: either a whole set is there, or a journal of one, of
  which it is made without embedding anything;
- the same command ends with the whole set, byte for byte; every other command ends with one too, or refuses without
  touching anything and names a command that does;
- nothing outside of the set's folder is touched.
"""

import concurrent.futures

import pytest

from preprocess.records import digest_table, duplicates
from tests.support.memory_storage import MemoryStorage
from tests.support.set_commands import Command, fresh, give, key_of, state_of, whole_set

PLAIN = Command()
OVERWRITE = Command(overwrite=True)
RETRY = Command(retry=True, complete_images=True)
VERIFY = Command(verify=True)
OTHER = Command("other", overwrite=True)
OTHER_PLAIN = Command("other")
COMMANDS = (PLAIN, OVERWRITE, RETRY, VERIFY, OTHER, OTHER_PLAIN)
FOREIGN = {
    "/a/elsewhere/train-00000-of-00002.tfrecord": b"another set's",
    "/a/out/train-more-00000-of-00001.tfrecord": b"a neighbour's",
    "/a/out/_train-more/manifest.json": b"a neighbour's",
    "/a/train.csv": b"a list",
}


class InTurn(concurrent.futures.Executor):
    """Does each piece of work in the thread of the caller, as soon as it is submitted."""

    def __init__(self, *_):
        pass

    def submit(self, function, /, *args, **kwargs):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch):
    """So that the order of changes is the same each time; and to start threads takes longer than all the rest."""
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", InTurn)
    for module in (duplicates, digest_table):  # Five records need no 64 parts.
        monkeypatch.setattr(module, "_PARTS", 2)


@pytest.fixture(scope="module")
def known():
    """What commands made of states, as several kills leave the same: outcome and files, by command and state."""
    return {}


@pytest.fixture
def led_to(known, monkeypatch):
    """What a command makes of files: its outcome and the files. In the same state it is given once."""

    def led_to(command, files):
        state = command, state_of(files)
        if state not in known:
            storage = MemoryStorage(files)
            known[state] = give(command, storage, monkeypatch), storage.files
            touched_only_its_own(storage)
        return known[state]

    return led_to


@pytest.fixture
def sets(monkeypatch):
    """The files of each set that a command may start from, by name; and all shards that a whole set may have."""
    mine, other = fresh(PLAIN, monkeypatch), fresh(OTHER_PLAIN, monkeypatch)
    retried = MemoryStorage(mine)
    assert give(RETRY, retried, monkeypatch).how == "finished"
    starts = {"nothing": {}, "mine": mine, "retried": retried.files, "other": other}
    assert len({whole_set(files) for files in starts.values()}) == 4
    return starts


def touched_only_its_own(storage):
    assert all(path.startswith(("/a/out/train-0", "/a/out/_train/")) for path in storage.touched), storage.touched
    assert {path: storage.files.get(path) for path in FOREIGN} == FOREIGN


def killed_states(start, command, monkeypatch, **options):
    """What a command leaves that is killed before each of its changes, up to the one that is not."""
    stop_at = 0
    while True:
        storage = MemoryStorage({**FOREIGN, **start}, stop_at=stop_at, **options)
        outcome = give(command, storage, monkeypatch)
        touched_only_its_own(storage)
        yield storage.files, outcome
        if storage._stop_at is not None:
            return
        stop_at += 1


def require_way_out(files, sets, led_to):
    """Every command finishes a set, or refuses, touches nothing and names one that does."""
    wholes = {whole_set(start) for start in sets.values()}
    for command in COMMANDS:
        outcome, left = led_to(command, files)
        if outcome.how == "finished":
            assert whole_set(left) in wholes - {None}, command
            left_over = "/parts-" if command.overwrite else f"/parts-{key_of(command)}/"
            assert not [path for path in left if left_over in path], command
            assert led_to(command, left)[0].how == "finished"
            continue
        assert outcome.how == "refused", (command, outcome)
        named = "--overwrite" in outcome.message or "without --retry_failures" in outcome.message
        assert named, (command, outcome.message)
        assert whole_set(left) == whole_set(files)


def require_nothing_lost(start, files, command, led_to):
    """A set that was whole is whole still, or another is, or a journal gives one without any work."""
    if whole_set(start) is None or whole_set(files) is not None:
        return
    outcome, left = led_to(command, files)
    assert (outcome.how, outcome.embedded) == ("finished", 0), outcome
    assert whole_set(left) is not None


STARTS = ("nothing", "mine", "retried", "other")


@pytest.mark.parametrize("moves_whole", [True, False], ids=["disk", "bucket"])
@pytest.mark.parametrize("command", [PLAIN, OVERWRITE, RETRY, OTHER], ids=["plain", "overwrite", "retry", "other"])
@pytest.mark.parametrize("start", STARTS)
def test_killed_before_any_change_every_command_leads_out(
    start, command, moves_whole, sets, known, led_to, monkeypatch
):
    undisturbed = MemoryStorage({**FOREIGN, **sets[start]})
    ending = give(command, undisturbed, monkeypatch).how
    changes = 0
    for files, outcome in killed_states(sets[start], command, monkeypatch, moves_whole=moves_whole):
        require_nothing_lost(sets[start], files, command, led_to)
        again, left = led_to(command, files)
        assert again.how == ending
        assert whole_set(left) == whole_set(undisturbed.files)
        state = state_of(files)
        if state not in known:
            require_way_out(files, sets, led_to)
            known[state] = None
        assert outcome.how in ("killed", ending)
        changes += outcome.how == "killed"
    assert ending == "refused" or changes


@pytest.mark.parametrize("command", [OVERWRITE, RETRY, OTHER], ids=["overwrite", "retry", "other"])
def test_a_fault_of_storage_at_any_change_leads_out(command, sets, led_to, monkeypatch):
    for files, outcome in killed_states(sets["mine"], command, monkeypatch, fault="error"):
        told = ("storage failed", "cannot write", "cannot use")
        assert outcome.how == "finished" or any(words in outcome.message for words in told)
        if outcome.how == "finished":
            assert whole_set(files) is not None
        require_nothing_lost(sets["mine"], files, command, led_to)
        again, left = led_to(command, files)
        assert again.how == "finished"
        assert whole_set(left) is not None


@pytest.mark.parametrize("command", [PLAIN, OVERWRITE, RETRY], ids=["plain", "overwrite", "retry"])
def test_killed_again_and_again_at_one_step_after_the_other(command, sets, led_to, monkeypatch):
    """Each run makes one more change than the one before it, until one gets to its end."""
    start = sets["nothing" if command == PLAIN else "mine"]
    undisturbed = MemoryStorage({**FOREIGN, **start})
    give(command, undisturbed, monkeypatch)
    for step in (1, 2, 3, 5, 7):
        files, stop_at = {**FOREIGN, **start}, step
        while True:
            storage = MemoryStorage(files, stop_at=stop_at)
            outcome = give(command, storage, monkeypatch)
            touched_only_its_own(storage)
            require_nothing_lost(start, storage.files, command, led_to)
            files, stop_at = storage.files, stop_at + step
            if outcome.how != "killed":
                break
        assert outcome.how == "finished"
        assert whole_set(files) == whole_set(undisturbed.files)
