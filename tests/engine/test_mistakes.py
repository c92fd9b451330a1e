"""Wrong options and configs: one line that names the key, before anything is trained."""

import logging
import os

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from engine.config import OneLineParser, add_arguments, load_config
from engine.run import build_runner, one_line, run
from models import InputError, SampleError

TOY = "configs/fna_det/retinanet_param_adapt_toy.py"
SSDLITE = "configs/fna_det/ssdlite_param_adapt_toy.py"
SEARCH = "configs/fna_det/retinanet_arch_adapt_toy.py"
SEGMENTATION = "configs/fna_seg/deeplabv3_param_adapt_toy.py"


@pytest.fixture(autouse=True)
def stay_here(monkeypatch):
    """load_config changes the current folder and the environment; put both back."""
    monkeypatch.chdir(os.getcwd())
    monkeypatch.setenv("LOCAL_RANK", "0")


def load(*arguments):
    parser = OneLineParser()
    add_arguments(parser)
    return load_config(parser.parse_args([str(argument) for argument in arguments]))


def refusal(function, *arguments):
    with pytest.raises(InputError) as error:
        function(*arguments)
    line = one_line(error.value)
    assert "\n" not in line and len(line) < 2100
    return line


# Told from what the config says


@pytest.mark.parametrize(
    "option, key, expected",
    [
        ("=", "''", "expected KEY=VALUE"),
        ("=5", "''", "expected KEY=VALUE"),
        ("train_cfg.=5", "'train_cfg.'", "expected KEY=VALUE"),
        ("trian_cfg.max_epochs=3", "'trian_cfg'", "did you mean train_cfg?"),
        ("train_cfg.max_epochs=abc", "train_cfg.max_epochs is 'abc'", "a whole number from 1"),
        ("train_cfg.max_epochs=0", "train_cfg.max_epochs is 0", "a whole number from 1"),
        ("train_dataloader.batch_size=0.5", "train_dataloader.batch_size is 0.5", "from 1 on"),
        ("val_dataloader.num_workers=-1", "val_dataloader.num_workers is -1", "from 0 on"),
        ("randomness.seed=abc", "randomness.seed is 'abc'", "a whole number from 0 to 4294967295"),
        ("randomness.sede=1", "randomness has no 'sede'", "did you mean seed?"),
        ("randomness.seed=-1", "randomness.seed is -1", "a whole number from 0"),
        ("randomness.seed=4294967296", "randomness.seed is 4294967296", "a whole number from 0"),
        ("optim_wrapper.optimizer.lr=nan", "optim_wrapper.optimizer.lr is nan", "a number"),
        ("custom_hooks=5", "custom_hooks is 5", "a list of settings with a type"),
        ("model=5", "model is 5", "settings with a type"),
        ("train_dataloader=5", "train_dataloader is 5", "settings"),
        ("log_level=FOO", "log_level is 'FOO'", "one of CRITICAL"),
        ("default_scope=foo", "default_scope is 'foo'", "mmdet or mmseg"),
        ("default_scope=5", "default_scope is 5", "mmdet or mmseg"),
        ("data_root=5", "data_root is 5", "text"),
        ("input_size=5", "input_size is 5", "(height, width)"),
        ("auto_scale_lr=5", "auto_scale_lr is 5", "settings"),
        ("model.backbone.net_config=5", "model.backbone: net_config: is 5", "text, the path"),
        ("model.backbone.net_config=None", "model.backbone: net_config: is None", "text, the path"),
        ("train_dataloader.dataset.indices=0", "train_dataloader.dataset.indices is 0", "how many"),
    ],
)
def test_a_wrong_value_is_told_before_anything_is_built(option, key, expected):
    line = refusal(load, TOY, "--cfg-options", option)
    assert key in line and expected in line


def test_options_that_mmengine_reads_are_taken_though_the_config_has_them_not():
    cfg = load(TOY, "--cfg-options", "load_from=some.pth", "find_unused_parameters=True")
    assert cfg.load_from == "some.pth" and cfg.find_unused_parameters is True


@pytest.mark.parametrize("config", [TOY, SSDLITE, SEGMENTATION, SEARCH])
def test_loaders_without_processes_keep_none(config):
    assert load(config).train_dataloader.num_workers == 0
    assert not load(config).train_dataloader.get("persistent_workers")
    cfg = load(config, "--cfg-options", "train_dataloader.num_workers=1")
    assert cfg.train_dataloader.persistent_workers


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.py", "", "has no model"),
        ("empty.json", "{}", "has no model"),
        ("other.json", '{"a": 1}', "has no model"),
        ("cut.json", '{"model": ', "Error"),
        ("wrong.yaml", "model: [1, {", "pars"),
        ("zero.py", "model = 1 / 0", "ZeroDivisionError"),
        ("claim.py", "assert False, 'claimed'", "AssertionError: claimed"),
        ("itself.py", "_base_ = 'itself.py'", "RecursionError"),
        ("memory.py", "raise MemoryError", "MemoryError"),
        ("scope.py", "default_scope = 'foo'", "foo"),
        ("type.py", "model = dict(a=1)", "model is {'a': 1}, expected settings with a type"),
        ("hooks.py", "model = dict(type='A')\ncustom_hooks = [dict(a=1)]", "custom_hooks"),
    ],
)
def test_configs_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    line = refusal(load, tmp_path / name)
    assert name in line and message in line


@pytest.mark.parametrize("option", ["--work-dir", "--data-root", "--net-config"])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_argument_is_a_variable_that_is_not_set(option, value):
    assert f"argument {option}: is empty" in refusal(load, TOY, option, value)


@pytest.mark.parametrize("argument", ["~nobody-here", "a" * 5000, "a\0b", "a\nb"])
@pytest.mark.parametrize("option", [None, "--net-config", "--data-root"])
def test_odd_paths(option, argument):
    assert refusal(load, *([argument] if option is None else [TOY, option, argument]))


@pytest.mark.parametrize(
    "launcher, variable", [("pytorch", "RANK"), ("slurm", "SLURM_PROCID"), ("mpi", "OMPI_COMM")]
)
def test_a_launcher_by_hand(launcher, variable, monkeypatch):
    for name in list(os.environ):
        if name in ("RANK", "WORLD_SIZE") or name.startswith(("SLURM_", "OMPI_", "MASTER_")):
            monkeypatch.delenv(name)
    line = refusal(load, TOY, "--launcher", launcher)
    assert f"--launcher {launcher}: {variable}" in line and "not in the environment" in line


# Told once it is built


def train(toy_city, seed_file, work_dir, *options, config=TOY):
    loaders = [f"{split}_dataloader.num_workers=0" for split in ("train", "val")]
    name = f"experiment_name={work_dir.name}"  # of two in one second, mmengine would make one
    options = [f"model.backbone.init_cfg.seed={seed_file}", name, *loaders, *options]
    arguments = ["--data-root", toy_city, "--work-dir", work_dir, "--cfg-options", *options]
    build_runner(load(config, *arguments)).train()


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, key, message",
    [
        ("model.type=RetinaNett", "model", "unknown type 'RetinaNett'; did you mean RetinaNet?"),
        (
            "model.bbox_head.num_class=1",
            "model.bbox_head",
            "RetinaHead has no argument 'num_class'; did you mean num_classes?",
        ),
        ("model.bbox_head.type=Foo", "model.bbox_head", "unknown type 'Foo'"),
        ("model.backbone=5", "model", "RetinaNet: TypeError: cfg should be a dict"),
        ("model.neck.in_channels=-5", "model.neck", "FPN: AssertionError: assert isinstance"),
        ("optim_wrapper.type=Foo", "optim_wrapper", "unknown type 'Foo'"),
        (
            "optim_wrapper.optimizer.type=AdamV",
            "optim_wrapper.optimizer",
            "unknown type 'AdamV'; did you mean Adam",
        ),
        ("optim_wrapper.optimizer.lr=abc", "optim_wrapper.optimizer", "AdamW: TypeError: "),
        ("optim_wrapper.optimizer.lrr=1", "optim_wrapper.optimizer", "AdamW has no argument 'lrr'"),
        ("param_scheduler.0.type=Foo", "param_scheduler.0", "unknown type 'Foo'"),
        ("param_scheduler=5", "", "`param_scheduler` should be a"),
        ("custom_hooks.0.type=Nix", "custom_hooks.0", "unknown type 'Nix'"),
        (
            "default_hooks.logger.intervall=5",
            "default_hooks.logger",
            "LoggerHook has no argument 'intervall'; did you mean interval?",
        ),
        ("visualizer.type=Foo", "visualizer", "unknown type 'Foo'"),
        ("val_evaluator.foo=1", "val_evaluator", "CocoMetric has no argument 'foo'"),
        ("train_cfg.max_epoch=3", "train_cfg", "has no argument 'max_epoch'"),
        (
            "train_dataloader.batchsize=2",
            "train_dataloader",
            "has no argument 'batchsize'; did you mean batch_size?",
        ),
        (
            "train_dataloader.dataset.pipeline.0.type=Foo",
            "train_dataloader.dataset.pipeline.0",
            "unknown type 'Foo'",
        ),
        ("train_dataloader.sampler.type=X", "train_dataloader.sampler", "unknown type 'X'"),
    ],
)
def test_a_wrong_setting_is_told_by_its_key(
    option, key, message, toy_city, seed_file, tmp_path, capfd
):
    line = refusal(train, toy_city, seed_file, tmp_path, option)
    assert line.startswith("config retinanet_param_adapt_toy.py: " + (key and f"{key}: "))
    assert message in line
    assert "Traceback" not in "".join(capfd.readouterr())


def test_data_settings_one_level_too_high(toy_city, seed_file, tmp_path):
    """RetinaNet's way of naming the data, in SSDLite's config, whose data set is repeated."""
    option = "train_dataloader.dataset.metainfo.classes=(cat,)"
    line = refusal(lambda: train(toy_city, seed_file, tmp_path, option, config=SSDLITE))
    assert "train_dataloader.dataset: RepeatDataset has no argument 'metainfo'" in line
    assert "one level deeper, as dataset.metainfo" in line


def test_the_traceback_is_in_the_log_file(toy_city, seed_file, tmp_path):
    refusal(train, toy_city, seed_file, tmp_path, "model.bbox_head.num_class=1")
    logging.shutdown()
    (log,) = tmp_path.glob("*/*.log")
    text = log.read_text()
    assert "Traceback" in text and "unexpected keyword argument 'num_class'" in text


@HOOKS.register_module(force=True)
class FailsInTraining(Hook):
    """Stands for a bug that shows itself once training runs."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise TypeError("a bug")


def test_an_error_of_a_training_step_stays_what_it_is(toy_city, seed_file, tmp_path):
    with pytest.raises(TypeError, match="a bug"):
        train(toy_city, seed_file, tmp_path, "custom_hooks.0.type=FailsInTraining")


# What is shown


def printed(error, capsys, monkeypatch):
    def main():
        raise error

    with pytest.raises(SystemExit) as left:
        run(main)
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "message, line",
    [
        ("image a\nerror: b: no such file", r"image a\nerror: b: no such file"),
        ("key \x1b[31mred\x07", r"key \x1b[31mred\x07"),
        ("half a pair \ud800", r"half a pair \ud800"),
        ("right to left \u202e", r"right to left \u202e"),
        ("Größe 3×3 ✓", "Größe 3×3 ✓"),
        (
            "Caught SampleError in DataLoader worker process 0.\nOriginal Traceback (most recent "
            'call last):\n  File "x.py", line 1, in f\n    raise SampleError(path)\n'
            "models.errors.SampleError: image a\nmodels.errors.SampleError: b: cut off\n",
            r"image a\nmodels.errors.SampleError: b: cut off",
        ),
    ],
)
def test_one_line_and_the_right_one(message, line, capsys, monkeypatch):
    assert printed(SampleError(message), capsys, monkeypatch) == f"error: {line}\n"


def test_a_message_is_bounded(capsys, monkeypatch):
    shown = printed(InputError("x" * 10**6 + "end"), capsys, monkeypatch)
    assert len(shown) < 2100 and shown.endswith("end\n")
