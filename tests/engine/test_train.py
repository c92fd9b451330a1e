"""The two entry points, run as users run them, on small data."""

import json
import pickle
import shutil

import pytest
import torch
from mmengine.config import Config

from engine.compat.safe_load import load_checkpoint_file
from models import NetConfig
from tests.conftest import REPO, net_config_file
from tests.processes import run_script

pytestmark = pytest.mark.slow  # each test starts whole runs
TOY = "configs/fna_det/retinanet_param_adapt_toy.py"
SMALL = [
    "train_cfg.max_epochs=2",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.persistent_workers=False",
    "test_dataloader.num_workers=0",
    "test_dataloader.persistent_workers=False",
    "default_hooks.logger.interval=1",
    "randomness.seed=0",
]
SSDLITE_SEARCH = "configs/fna_det/ssdlite_arch_adapt_toy.py"
SSDLITE = "configs/fna_det/ssdlite_param_adapt_toy.py"


def small_run(toy_city, seed_file, work_dir, *options, config=TOY, gpus=0):
    options = [*SMALL, f"model.backbone.init_cfg.seed={seed_file}", *options]
    return [
        config,
        gpus,
        "--data-root",
        toy_city,
        "--work-dir",
        work_dir,
        "--cfg-options",
        *options,
    ]


@pytest.fixture(scope="module")
def trained(toy_city, seed_file, tmp_path_factory):
    """A finished run of two epochs, started as users start it: its work dir and its output."""
    work_dir = tmp_path_factory.mktemp("trained") / "run"
    process = run_script("param_adapt", *small_run(toy_city, seed_file, work_dir), new=True)
    assert process.returncode == 0, process.stderr
    return work_dir, process


def test_training_logs_and_leaves_checkpoints(trained):
    work_dir, process = trained
    assert (work_dir / "epoch_2.pth").is_file()
    assert "288 tensors from the seed" in process.stdout
    assert "eta:" in process.stdout
    assert f"are in {work_dir}" in process.stdout
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    dumped = Config.fromfile(work_dir / "retinanet_param_adapt_toy.py")
    architecture = net_config_file("retinanet").read_text().strip()
    assert dumped.model.backbone.net_config == architecture
    checkpoint = load_checkpoint_file(work_dir / "epoch_2.pth")
    assert checkpoint["meta"]["net_config"] == architecture


def test_the_console_begins_with_what_matters(trained):
    """And the log's file with everything."""
    work_dir, process = trained
    start = process.stdout.partition("Epoch(train)")[0]
    assert len(start.splitlines()) < 15
    assert "Data, train: 8 images" in start
    assert "Model: RetinaNet on FNABackbone, 2.56M params, 0.23B MAdds at 128x256" in start
    assert "Schedule: 2 epochs of 4 iterations, 2 images each; learning rate 0.002 (AdamW)" in start
    assert f"Results go to {work_dir}" in start
    (log,) = work_dir.glob("*/*.log")
    whole = log.read_text()
    assert start.splitlines()[-2].split("INFO - ")[1] in whole
    for begin in ("System environment:", "Config:\n", "Hooks will be executed"):
        assert begin in whole and begin not in process.stdout


def test_evaluation_writes_metrics_and_pictures(trained, toy_city, tmp_path):
    work_dir, _ = trained
    process = run_script(
        "test", REPO / TOY, work_dir / "epoch_2.pth",
        "--data-root", toy_city, "--work-dir", "out", "--show-dir", "pictures", "--out", "p.pkl",
        "--latency", "--cfg-options", "resume=True",  # as a resumed training's config has it
        cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "resumed" not in process.stdout
    # TensorBoard would list it as a run without a curve
    assert not list((tmp_path / "out").rglob("events.out.tfevents*"))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    ap, ap50 = metrics["coco/bbox_mAP"], metrics["coco/bbox_mAP_50"]
    assert 0 <= ap <= ap50 <= 1 and metrics["headline"] == {"AP": ap, "AP50": ap50}
    assert (
        metrics["params"] > 1e6 and metrics["madds"] > 1e8 and metrics["input_size"] == [128, 256]
    )
    latency = metrics["latency"]
    assert 0 < latency["backbone"]["median"] < latency["model"]["median"]
    assert "Latency: whole model" in process.stdout and "torch on" in process.stdout
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 4
    predictions = pickle.loads((tmp_path / "p.pkl").read_bytes())
    assert len(predictions) == 4
    for sample in predictions:
        assert {"img_id", "img_path", "ori_shape", "pred_instances"} <= set(sample)
        assert not {"gt_instances", "ignored_instances"} & set(sample)
        assert set(sample["pred_instances"]) == {"bboxes", "labels", "scores"}


def test_an_interrupted_run_resumes_to_the_same_weights(trained, toy_city, seed_file, tmp_path):
    """Stopped after the first of two epochs, the run ends with the uninterrupted run's weights."""
    uninterrupted, _ = trained
    arguments = small_run(toy_city, seed_file, tmp_path / "run")
    (tmp_path / "run").mkdir()
    shutil.copy(uninterrupted / "epoch_1.pth", tmp_path / "run")
    (tmp_path / "run/last_checkpoint").write_text(str(tmp_path / "run/epoch_1.pth"))
    process = run_script("param_adapt", *arguments[:2], "--resume", *arguments[2:])
    assert process.returncode == 0, process.stderr
    assert "resumed epoch: 1" in process.stdout
    resumed = load_checkpoint_file(tmp_path / "run/epoch_2.pth")["state_dict"]
    expected = load_checkpoint_file(uninterrupted / "epoch_2.pth")["state_dict"]
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)


def test_two_processes_on_cpu_hold_equal_parameters(toy_city, seed_file, tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(REPO / TOY)!r}\n"
        "imports = [*_base_.custom_imports.imports, 'tests.engine.save_ranks']\n"
        "custom_imports = dict(imports=imports)\n"
        "custom_hooks = [dict(type='SaveRanks')]\n"
    )
    _, *arguments = small_run(toy_city, seed_file, tmp_path / "run", "train_cfg.max_epochs=1")
    process = run_script("param_adapt", config, *arguments, PROCESSES="2")
    assert process.returncode == 0, process.stderr
    ranks = [torch.load(tmp_path / f"run/rank_{rank}.pth") for rank in (0, 1)]
    initial = torch.load(tmp_path / "run/initial.pth")
    assert ranks[0]["seen"] != ranks[1]["seen"]
    for key, tensor in ranks[0]["state_dict"].items():
        assert torch.equal(tensor, ranks[1]["state_dict"][key]), key
    changed = [k for k, t in ranks[0]["state_dict"].items() if not torch.equal(t, initial[k])]
    assert any(key.startswith("backbone") for key in changed)


def adapt_and_test_ssdlite(toy_city, seed_file, work_dir, *options):
    """One epoch of SSDLite, then its metrics."""
    arguments = small_run(toy_city, seed_file, work_dir, "train_cfg.max_epochs=1", config=SSDLITE)
    process = run_script("param_adapt", *arguments, *options)
    assert process.returncode == 0, process.stderr
    assert "0 keep their initial values" in process.stdout
    assert "Warning" not in process.stderr and "WARNING" not in process.stdout
    process = run_script(
        "test", SSDLITE, work_dir / "epoch_1.pth", 0, "--data-root", toy_city,
        "--work-dir", work_dir, *options,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return json.loads((work_dir / "metrics.json").read_text())


def test_ssdlite_trains_and_is_evaluated(toy_city, seed_file, tmp_path):
    metrics = adapt_and_test_ssdlite(toy_city, seed_file, tmp_path)
    assert 0 <= metrics["coco/bbox_mAP"] <= metrics["coco/bbox_mAP_50"] <= 1
    assert metrics["input_size"] == [128, 256] and 2.5e6 < metrics["params"] < 4.6e6
    assert 0.2e9 < metrics["madds"] < 0.25e9


def test_what_ssdlite_finds_is_adapted_and_evaluated(toy_city, seed_file, tmp_path):
    """A search in two processes; if interrupted after its first epoch, it finds the same."""

    def search(name, *resume):
        ranking = "train_cfg.ranking.candidates=3", "train_cfg.ranking.batches=1"
        options = dict(config=SSDLITE_SEARCH)
        arguments = small_run(toy_city, seed_file, tmp_path / name, *ranking, **options)
        # a search has no such loaders
        arguments = [a for a in arguments if not str(a).startswith(("val_", "test_"))]
        arguments[2:2] = resume
        process = run_script("arch_adapt", *arguments, PROCESSES="2")
        assert process.returncode == 0, process.stderr
        assert "Architecture after epoch 2: backbone" in process.stdout
        return load_checkpoint_file(tmp_path / name / "epoch_2.pth")["state_dict"]

    whole = search("search")
    resumed = search("resumed", "--resume", tmp_path / "search/epoch_1.pth")
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)

    file = tmp_path / "search/net_config.txt"
    found = NetConfig.parse(file)
    assert found.stages[5].ops[0].endswith("_e6")
    adapt_and_test_ssdlite(toy_city, seed_file, tmp_path / "found", "--net-config", file)
    dumped = Config.fromfile(tmp_path / "found/ssdlite_param_adapt_toy.py")
    assert NetConfig.parse(dumped.model.backbone.net_config) == found


OTHER_CHANNELS = (
    net_config_file("retinanet")
    .read_text()
    .replace("24, 32]", "24, 40]")
    .replace("[32, 64", "[40, 64")
)
OTHER_EXPANSION = (
    net_config_file("ssdlite").read_text().replace("[[96, 160], ['k5_e6'", "[[96, 160], ['k5_e3'")
)
BAD = {
    "config that does not exist": (["configs/none.py", "0"], "configs/none.py: no such file"),
    "data root that does not exist": (
        [TOY, "0", "--data-root", "/none"],
        "/none: is no folder",
    ),
    "data root without annotations": ([TOY, "0", "--data-root", "."], "annotations/instances_"),
    "unknown op": ([TOY, "0", "--net-config", "[[32, 16], ['k3e1'], 1]"], "unknown op 'k3e1'"),
    "net_config file that is not there": ([TOY, "0", "--net-config", "none.txt"], "none.txt"),
    "work dir not writable": ([TOY, "0", "--work-dir", "/proc/none"], "/proc/none: cannot write"),
    "more GPUs than there are": ([TOY, "99"], "99 GPUs asked for"),
    "checkpoint to resume from missing": ([TOY, "0", "--resume", "none.pth"], "none.pth"),
    "architecture of other channels": (
        [TOY, "0", "--net-config", OTHER_CHANNELS],
        "in_channels is [24, 32, 96, 320], but the backbone gives [24, 40, 96, 320]",
    ),
    "architecture that expands otherwise": (
        [SSDLITE, "0", "--net-config", OTHER_EXPANSION],
        "in_channels is [96, 576, 1280], but the backbone gives [96, 288, 1280]",
    ),
    "search space in which the first map's width is open": (
        [
            SSDLITE_SEARCH,
            "0",
            "--cfg-options",
            "model.backbone.ops=k3_e3,k3_e6",
            "model.backbone.out_indices=5.expand,8",
        ],
        "'5.expand' needs one expansion of 2 or more in the first layer of that stage, got e3, e6",
    ),
    "unknown option": ([TOY, "0", "--epochs", "3"], "unrecognized arguments: --epochs"),
    "evaluator of another file": (
        [TOY, "0", "--cfg-options", "val_evaluator.ann_file=data/coco/annotations/val.json"],
        "ann_file is data/coco/annotations/val.json, but the data loader reads",
    ),
    "fewer images than a batch": (
        [SSDLITE, "0", "--cfg-options", "train_dataloader.batch_size=16"],
        "train_dataloader: 8 images do not fill one batch of 16",
    ),
    "a batch of one image where BN needs two": (
        [
            "configs/fna_det/ssdlite_param_adapt_coco.py",
            "0",
            "--cfg-options",
            "train_dataloader.batch_size=1",
            "train_dataloader.num_workers=0",
            "val_dataloader.num_workers=0",
        ],
        "expected batch_size of 2 or more and drop_last=True",
    ),
    "head with too few classes": (
        [TOY, "0", "--cfg-options", "model.bbox_head.num_classes=8"],
        "num_classes is 8, but the data set has 9 classes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_end_in_one_line(case, toy_city, seed_file, tmp_path):
    (config, gpus, *options), message = BAD[case]
    if "--cfg-options" not in options:
        options += ["--cfg-options"]
    options += [f"model.backbone.init_cfg.seed={seed_file}"]
    # in front: of an option that is given twice the last counts
    defaults = ["--data-root", toy_city, "--work-dir", tmp_path / "run"]
    process = run_script("param_adapt", config, gpus, *defaults, *options)
    assert process.returncode == 2
    assert "Traceback" not in process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_an_image_that_is_cut_off_ends_in_one_line(toy_city, seed_file, tmp_path):
    """Found in a loader's process."""
    root = shutil.copytree(toy_city, tmp_path / "toy_city")
    path = root / "train2017/000000000005.jpg"
    path.write_bytes(path.read_bytes()[:1000])
    options = small_run(root, seed_file, tmp_path / "run", "train_dataloader.num_workers=1")
    process = run_script("param_adapt", *options)
    assert process.returncode == 2 and "Traceback" not in process.stdout + process.stderr
    (line,) = process.stderr.strip().splitlines()
    assert line.startswith(f"error: image {path}: cannot be read: ")


def test_missing_seed_ends_in_one_line(toy_city, tmp_path):
    arguments = small_run(toy_city, tmp_path / "none.pth", tmp_path / "run")
    process = run_script("param_adapt", *arguments, new=True)
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert "none.pth" in process.stderr and "get_seed.sh" in process.stderr


def test_checkpoint_of_another_architecture(trained, toy_city, tmp_path):
    process = run_script(
        "test", TOY, trained[0] / "epoch_2.pth", "--data-root", toy_city,
        "--work-dir", tmp_path, "--net-config", net_config_file("mobilenetv2"),
    )  # fmt: skip
    assert process.returncode == 2 and "Traceback" not in process.stderr
    assert "is of another architecture" in process.stderr
    assert not (tmp_path / "metrics.json").exists()
