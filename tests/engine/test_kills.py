"""Runs that are killed (SIGKILL) anywhere end, once resumed, as if they had not been."""

import random
import shutil
import signal

import pytest

from tests.kills import KINDS, Runs, Watch, differences

WHENS = ("open", "half", "before", "after")


@pytest.fixture(scope="module")
def start(toy_city, seed_file, tmp_path_factory):
    """Makes the runs of a kind."""

    def make(kind: str) -> Runs:
        return Runs(kind, tmp_path_factory.mktemp("kills"), toy_city, seed_file)

    return make


def in_last_evaluation(hooks: list[str]) -> Watch:
    return Watch(hook=len(hooks) - hooks[::-1].index("after_val_iter"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, watch",
    [
        ("search, detection", lambda hooks: Watch(write=("last_checkpoint", 1, "half"))),
        ("search, detection", lambda hooks: Watch(write=("last_checkpoint", 2, "half"))),
        ("search, segmentation", lambda hooks: Watch(write=("net_config.txt", 1, "before"))),
        ("adaptation, detection", lambda hooks: Watch(write=("iter_6.pth", 1, "half"))),
        ("adaptation, segmentation", in_last_evaluation),
    ],
)
def test_a_killed_run_resumes_to_the_bit(kind, watch, start):
    runs = start(kind)
    _, hooks = runs.uninterrupted()
    assert runs.killed_and_resumed("killed", watch(hooks)) == []


@pytest.mark.slow
def test_a_new_run_in_an_old_work_dir_is_not_continued_as_the_old_one(start):
    runs = start("adaptation, segmentation")
    _, hooks = runs.uninterrupted()
    shutil.copytree(runs.folder / "whole", runs.folder / "again")
    before_first_checkpoint = Watch(hook=1 + hooks.index("after_train_iter"))
    status, output = runs.start("again", watch=before_first_checkpoint)
    assert status == -signal.SIGKILL and "of an earlier one to" in output
    status, output = runs.start("again", "--resume")
    assert status == 0 and "no checkpoint, starts anew" in output
    assert differences(runs.folder / "again", runs.folder / "whole") == []
    (aside,) = (runs.folder / "again").glob("before_*")
    assert {"iter_6.pth", "last_checkpoint"} <= {path.name for path in aside.iterdir()}


def kill_points(writes: list[str], hooks: list[str]) -> list[tuple[Watch, ...]]:
    """Each write at one moment, the first two of last_checkpoint at all; random hooks; twice."""
    points = []
    for number, name in enumerate(writes):
        occurrence = writes[: number + 1].count(name)
        all_moments = name == "last_checkpoint" and occurrence <= 2
        for when in WHENS if all_moments else [WHENS[number % len(WHENS)]]:
            points.append((Watch(write=(name, occurrence, when)),))
    draw = random.Random(0)
    numbers = draw.sample(range(1, len(hooks) + 1), 10)
    points += [(Watch(hook=number),) for number in numbers]
    # and what resumes is killed, too
    points += [(Watch(hook=len(hooks) * 2 // 3), Watch(hook=draw.randint(3, 9))) for _ in range(2)]
    return points


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kill_point(kind, start):
    runs = start(kind)
    points = kill_points(*runs.uninterrupted())
    failed = {}
    for number, watches in enumerate(points):
        if found := runs.killed_and_resumed(f"killed_{number}", *watches):
            failed[number] = [(watch.write, watch.hook) for watch in watches], found
            print(f"\n{kind}, point {number}: {failed[number]}")  # all of them take long
    lost = sum("lost" in found[0] for _, found in failed.values())
    print(f"\n{kind}: {len(points)} kill points, {lost} lost, {len(failed) - lost} differing")
    assert len(points) >= 20 and not failed
