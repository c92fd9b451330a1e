"""The grid of the evidence: its plan, and how cells are done, resumed, repeated and compared."""

import io
import json
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from types import SimpleNamespace

import pytest
from mmengine.config import Config, DictAction

from benchmarks import evidence
from benchmarks.evidence import Evidence, Running, select
from benchmarks.evidence_grid import Grid
from benchmarks.evidence_plan import SEEDS, TASKS, Cell, Task, read
from benchmarks.evidence_report import write_report
from engine.model import build_model
from models import InputError, NetConfig, count_params
from tests.conftest import REPO, SEEDS_OWN, net_config_file


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(evidence, "_POLL_SECONDS", 0.005)
    monkeypatch.setattr(evidence, "digest", lambda cell: "digest")
    monkeypatch.setattr(evidence, "_about", lambda: dict(versions=dict(torch="t")))
    monkeypatch.setattr(evidence, "device_name", lambda kind: f"a {kind}")


class FakeGrid(Grid):
    """Cells a, b, ...; what each runs is a shell command, what it finds is its own name."""

    def __init__(self, folder, cells, scripts=()):
        self.results, self.work = folder / "results", folder / "work"
        self.results.mkdir(parents=True, exist_ok=True)
        self.cells = {cell.name: cell for cell in cells}
        self.known, self.gpus = {}, "0"
        self.scripts = dict(scripts)
        self.begun = []

    def _training(self, cell, folder):
        self.begun.append(cell.name)
        yield "training", ["sh", "-c", self.scripts.get(cell.name, ":")]
        return dict(net_config=cell.name)

    _search = _latency = _training

    def has_weights(self, search):
        return (self.work / search / "done").is_file()


def cells_of(names, kind="training", **rest):
    return [Cell(name, kind, name, config="c", **rest) for name in names]


def do(grid, wanted=None, again=(), cores=(0,)):
    screen = io.StringIO()
    Evidence(grid, wanted or list(grid.cells), again, cores, screen).run()
    return screen.getvalue()


@pytest.mark.parametrize(
    "task, trainings, searches", [("bccd_ssdlite", 54, 12), ("camvid_deeplabv3", 74, 14)]
)
def test_the_plan_has_all_rows_and_each_cell_after_what_it_needs(task, trainings, searches):
    grid = Grid(TASKS[task], REPO / "results", REPO / "work")
    names = list(grid.cells)
    kinds = [cell.kind for cell in grid.cells.values()]
    assert kinds.count("training") == trainings and kinds.count("search") == searches
    for cell in grid.cells.values():
        assert all(names.index(need) < names.index(cell.name) for need in grid.needs(cell))
    # a partial grid has every row with the first random seeds
    of_seeds = [c.seed for c in grid.cells.values() if c.row == "found_shared_inherited"]
    assert of_seeds == list(SEEDS)
    first = [cell for cell in grid.cells.values() if cell.seed == 0]
    tries = [row for name, *_ in TASKS[task].tries for row in (f"search_{name}", f"found_{name}")]
    ablation = ("width", "kernel", "found_blind", "search_blind", "found_paper_random")
    late = (*ablation, "found_latency_longer", "random_latency_longer", *tries)
    assert all(
        (names.index(cell.name) < names.index("seed-1")) != cell.row.startswith(late)
        for cell in first
    )
    assert names[-1] == "latency"


def test_random_architectures_trained_longer_differ_from_random_seed_to_random_seed():
    cells = Grid(TASKS["bccd_ssdlite"], REPO / "results", REPO / "work").cells
    longer = [cells[f"random_latency_longer-{seed}"] for seed in SEEDS]
    assert len({cell.number for cell in longer}) == len(SEEDS)
    assert {cell.settings for cell in longer} == {cells["seed_longer-0"].settings}


def test_searches_take_over_the_loss_of_the_training():
    grid = Grid(TASKS["camvid_deeplabv3"], REPO / "results", REPO / "work")
    parser = ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    own = read(grid.task.training).model.decode_head.loss_decode
    assert len(own.class_weight) == 11
    for cell in grid.cells.values():
        if cell.kind in ("search", "held_out"):
            cfg = read(cell.config)
            options = parser.parse_args(["--cfg-options", *cell.settings])
            cfg.merge_from_dict(options.cfg_options)
            assert cfg.model.decode_head.loss_decode == own


def test_searches_share_their_targets_and_trainings_their_config():
    cells = Grid(TASKS["bccd_ssdlite"], REPO / "results", REPO / "work").cells
    assert "train_cfg.cost.target=1.0 seed" in cells["search_paper-1"].settings
    assert cells["search_paper-1"].settings == cells["search_shared-1"].settings
    assert cells["draw_latency"].settings == cells["search_latency-0"].settings
    assert "train_cfg.cost.input_size=(320,320)" in cells["search_latency-0"].settings
    trained = {cell.config for cell in cells.values() if cell.kind == "training"}
    assert len(trained) == 1


def test_commands_of_a_training(tmp_path, monkeypatch):
    grid = Grid(TASKS["bccd_ssdlite"], tmp_path, tmp_path / "work", data_root="/data")
    (tmp_path / "search_shared-2.json").write_text(json.dumps(dict(net_config="[found]")))
    (tmp_path / "draw_madds.json").write_text(json.dumps(dict(net_configs=["[1]", "[2]", "[3]"])))

    def first(name):
        label, command = next(grid.commands(grid.cells[name], tmp_path / "cell"))
        assert label == "training" and command[1].endswith("scripts/param_adapt.sh")
        return " ".join(command[2:])

    config = TASKS["bccd_ssdlite"].training
    common = f"--resume --work-dir {tmp_path}/cell --data-root /data --cfg-options"
    keep = "default_hooks.checkpoint.max_keep_ckpts=1"
    expected = f"{config} 0 --net-config [found] {common} randomness.seed=2 {keep}"
    assert first("found_shared-2") == expected
    assert " 0 --net-config [2] " in first("random_madds_2-0")
    assert " 0 --net-config configs/net_configs/mobilenetv2.txt " in first("seed-0")
    assert f" 0 --inherit {tmp_path / 'work'}/search_shared-2 --resume" in first(
        "found_shared_inherited-2"
    )
    assert f"{config} 0 --resume" in first("published-0")
    assert "--cfg-options model.backbone.init_cfg=None randomness.seed=1" in first(
        "published_random-1"
    )


def test_what_is_done_is_skipped_and_needs_come_first(tmp_path):
    a, b, c = cells_of("abc")
    grid = FakeGrid(tmp_path, [c, Cell("b", "training", "b", config="c", after=("a",)), a])
    (grid.results / "c.json").write_text('{"core_minutes": {"training": 3}}')
    screen = do(grid)
    assert grid.begun == ["a", "b"]
    result = json.loads((grid.results / "b.json").read_text())
    assert (result["net_config"], result["starts"]) == ("b", {"training": 1})
    assert "a: done" in screen and "c" not in [line[10] for line in screen.splitlines()]
    do(grid)
    assert grid.begun == ["a", "b"]


def test_only_what_is_wanted_and_its_needs(tmp_path):
    cells = [*cells_of("ab"), Cell("d", "training", "d", config="c", after=("a",))]
    grid = FakeGrid(tmp_path, cells)
    do(grid, wanted=["d"])
    assert grid.begun == ["a", "d"]


def test_two_at_a_time_but_measurements_alone(tmp_path):
    """Each notes when it runs: two trainings overlap, nothing overlaps a measurement."""
    log = tmp_path / "log"
    both = f"for i in $(seq 999); do [ $(grep -c + {log}) -ge 3 ] && break; sleep 0.01; done"
    waits = dict(m="sleep 0.1", a=both, b=both, n="sleep 0.1")
    scripts = {name: f"echo + >> {log}; {wait}; echo - >> {log}" for name, wait in waits.items()}
    cells = [Cell(n, "training", n, config="c", alone=n in "mn") for n in scripts]
    do(FakeGrid(tmp_path, cells, scripts), cores=(0, 0))
    assert log.read_text().split() == ["+", "-", "+", "+", "-", "-", "+", "-"]


def test_cpu_time_is_measured_and_runs_have_one_core_and_thread(tmp_path):
    busy = (
        "import os, time; assert os.sched_getaffinity(0) == {0}; "
        "assert os.environ['OMP_NUM_THREADS'] == '1'; "
        "while_ = [None for _ in iter(lambda: time.process_time() < 0.6, False)]"
    )
    grid = FakeGrid(tmp_path, cells_of("a"), dict(a=f'{sys.executable} -c "{busy}"'))
    do(grid)
    result = json.loads((grid.results / "a.json").read_text())
    assert 0.6 / 60 - 0.006 <= result["core_minutes"]["training"] <= 1.5 / 60


def test_failures_are_told_and_do_not_stop_the_others(tmp_path):
    fails = "echo 'error: no such file'; exit 2"
    needs = Cell("d", "training", "d", config="c", after=("a",))
    grid = FakeGrid(tmp_path, [*cells_of("ab"), needs], dict(a=fails))
    with pytest.raises(InputError, match=r"failed: a: no such file \(.*log.txt\)"):
        do(grid)
    assert grid.begun == ["a", "b"] and (grid.results / "b.json").is_file()
    grid = FakeGrid(tmp_path / "other", cells_of("abcd"), dict.fromkeys("abcd", fails))
    with pytest.raises(InputError):
        do(grid)
    assert grid.begun == ["a", "b"]  # two in a row: it is not the cells


def test_an_interrupted_cell_continues_in_its_folder(tmp_path):
    """And its run has ended when the program has."""
    grid = FakeGrid(tmp_path, cells_of("a"), dict(a="exec sleep 60"))
    running = Running(grid.cells["a"], 0, grid.work / "a", grid.commands(grid.cells["a"], None), 0)
    running.folder.mkdir(parents=True)
    assert running.start_next() is None and not running.has_ended()
    running.stop()
    assert running.process.returncode == -15
    running.stop()  # and once more, which is nothing
    assert running.used()["training"]["starts"] == 1
    grid.scripts = {}
    do(grid)
    assert json.loads((grid.results / "a.json").read_text())["starts"] == {"training": 2}


def test_runs_end_with_the_program_however_that_ends(tmp_path):
    grid = FakeGrid(tmp_path, cells_of("a"), dict(a=f"echo $$ > {tmp_path}/pid; exec sleep 60"))
    program = multiprocessing.get_context("fork").Process(target=do, args=(grid,))
    program.start()
    pid = tmp_path / "pid"
    while not (pid.is_file() and pid.read_text().strip()):
        assert program.is_alive()
        time.sleep(0.02)
    program.kill()
    program.join()
    child = int(pid.read_text())
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}"):
            break
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}")


def test_a_search_is_repeated_where_its_weights_are_gone(tmp_path):
    (search,) = cells_of(["s"], "search")
    trained = Cell("t", "training", "t", config="c", inherits="s")
    grid = FakeGrid(tmp_path, [search, trained])
    committed = dict(
        net_config="s", core_minutes={"search": 1}, machine="x", versions=dict(torch="t")
    )
    (grid.results / "s.json").write_text(json.dumps(committed))
    screen = do(grid)
    assert grid.begun == ["s", "t"]
    assert "s: its weights, which t needs, are not here" in screen
    assert "equal to the result there" in screen
    assert json.loads((grid.results / "s.json").read_text()) == committed
    do(grid, wanted=["t"], again=["t"])  # they are here now
    assert grid.begun == ["s", "t", "t"]


def test_again_compares_and_keeps_the_result(tmp_path):
    grid = FakeGrid(tmp_path, cells_of("a"))
    do(grid)
    assert "equal to the result there, to the last digit" in do(grid, ["a"], ["a"])
    result = json.loads((grid.results / "a.json").read_text())
    grid.write("a", result | dict(net_config="other"))
    assert "differs from the result there in net_config (made on a cpu, torch t)" in do(
        grid, ["a"], ["a"]
    )
    assert json.loads((grid.results / "a.json").read_text())["net_config"] == "other"
    assert grid.begun == ["a"] * 3 and not list((grid.work / "again").iterdir())


def test_nothing_old_comes_into_a_new_result(tmp_path, monkeypatch):
    """What is left of other settings, or of a result that has been removed, is deleted."""
    script = "cd {work}/a; " + "test ! -e left; ok=$?; touch left; exit $ok"
    grid = FakeGrid(tmp_path, cells_of("a"), dict(a=script.format(work=tmp_path / "work")))
    do(grid)
    (grid.results / "a.json").unlink()
    grid.known.clear()
    do(grid)  # would fail where "left" is left
    (grid.work / "a/done").unlink()  # as if interrupted
    (grid.results / "a.json").unlink()
    grid.known.clear()
    monkeypatch.setattr(evidence, "digest", lambda cell: "another")
    do(grid)
    assert json.loads((grid.results / "a.json").read_text())["config_digest"] == "another"
    (grid.work / "a/done").unlink()
    (grid.results / "a.json").unlink()
    grid.known.clear()
    with pytest.raises(InputError, match="failed: a"):
        do(grid)  # of the same settings: continues in what is there


def test_what_a_cell_left_is_not_usable(tmp_path):
    class Broken(FakeGrid):
        def _training(self, cell, folder):
            yield "training", ["true"]
            raise KeyError("net_config")

    with pytest.raises(InputError, match="failed: a: KeyError 'net_config'"):
        do(Broken(tmp_path, cells_of("a")))


def test_select():
    grid = Grid(TASKS["bccd_ssdlite"], REPO / "results", REPO / "work")
    assert select(grid, "seed", None) == ["seed-0", "seed-1", "seed-2"]
    assert select(grid, "seed", 1) == select(grid, "seed-1", None) == ["seed-1"]
    assert select(grid, None, None) == list(grid.cells)
    with pytest.raises(InputError, match="--only seed: no such row or cell of random seed 9"):
        select(grid, "seed", 9)


def test_another_setting_has_another_digest(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(REPO)
    config = tmp_path / "config.py"

    def digest_of(text, settings=("a=1",)):
        config.write_text(text)
        return evidence.digest(SimpleNamespace(config=str(config), settings=settings))

    base = "model = dict(type='M')\ndata_root = 'here'\n"
    assert digest_of(base) == digest_of(base.replace("here", "there") + "# a comment\n")
    assert digest_of(base) != digest_of(base.replace("'M'", "'N'"))
    assert digest_of(base) != digest_of(base, ("a=2",))


@pytest.mark.parametrize(
    "arguments, mistake",
    [
        (["bccd"], "invalid choice: 'bccd'"),
        (["bccd_ssdlite", "--jobs", "999"], "--jobs 999: expected 1 to"),
        (["bccd_ssdlite", "--seed", "1"], "--seed: expected with --only"),
        (["bccd_ssdlite", "--only", "x", "--list", "--jobs", "0"], "--jobs 0"),
    ],
)
def test_mistakes(arguments, mistake, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evidence", *arguments])
    with pytest.raises(InputError, match=mistake):
        evidence.main()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Default ``avg_non_ignore``")
def test_a_cell_of_toy_scenes(toy_city, seed_file, tmp_path, monkeypatch):
    """A training and its evaluations, by the scripts."""
    monkeypatch.setattr(evidence, "_POLL_SECONDS", 0.1)
    config = tmp_path / "tiny.py"
    config.write_text(f"""
_base_ = {str(REPO / "configs/fna_seg/deeplabv3_param_adapt_toy.py")!r}
model = dict(backbone=dict(init_cfg=dict(seed={str(seed_file)!r})))
train_cfg = dict(max_iters=2)
train_dataloader = dict(num_workers=0)
val_dataloader = dict(num_workers=0)
test_dataloader = dict(num_workers=0)
custom_hooks = [dict(type="CheckModel")]
""")
    task = Task("Toy scenes", *[str(config)] * 3, longer=())
    grid = Grid(task, tmp_path / "results", tmp_path / "work", str(toy_city))
    grid.results.mkdir()
    screen = do(grid, ["seed-1"])
    result = json.loads((grid.results / "seed-1.json").read_text())
    assert result["net_config"] == str(NetConfig.parse(net_config_file("mobilenetv2")))
    assert result["validation"] == result["test"] and 0 <= result["test"]["mIoU"] <= 100
    assert result["input_size"] == [129, 257]
    assert result["params"] == count_params(build_model(str(config), options=SEEDS_OWN)[0])
    assert result["starts"] == {"training": 1, "evaluation": 2}
    assert result["core_minutes"]["training"] > 0.01
    assert f"validation mIoU {result['test']['mIoU']:.4g}" in screen
    assert str(tmp_path) not in json.dumps(result["settings"])
    trained = Config.fromfile(grid.work / "seed-1/tiny.py")
    assert trained.randomness.seed == 1
    (page,) = write_report(grid, tmp_path / "toy")
    assert "| MobileNetV2, the seed's own | 1 |" in page.read_text()


def test_runs_on_the_gpu_but_measurements_on_the_cpu(tmp_path):
    see = 'test "$CUDA_VISIBLE_DEVICES" != -1'
    grid = FakeGrid(
        tmp_path,
        [*cells_of("a"), Cell("m", "training", "m", config="c", alone=True)],
        dict(a=see, m="echo"),
    )
    grid.gpus = "1"
    do(grid)
    machines = {name: grid.result(name)["machine"] for name in grid.cells}
    assert machines == dict(a="a cuda", m="a cpu")
    (tmp_path / "cpu").mkdir()
    with pytest.raises(InputError, match="status 1"):
        do(FakeGrid(tmp_path / "cpu", cells_of("a"), dict(a=see)))
    for gpus in "01":
        real = Grid(TASKS["bccd_ssdlite"], tmp_path, tmp_path / "work", gpus=gpus)
        _, command = next(real.commands(real.cells["published-0"], tmp_path / "cell"))
        assert command[2:4] == [TASKS["bccd_ssdlite"].training, gpus]
