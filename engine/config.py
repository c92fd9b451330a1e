"""The configs of the two entry points: a file, and what the command line changes in it."""

import argparse
import os
from importlib import import_module
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction

from models import InputError, NetConfig
from models.errors import shown
from models.files import locate
from models.net_config import is_text

from .compat import mmcv_ops
from .settings import check_launcher, check_options, check_settings

REPO = Path(__file__).resolve().parent.parent


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a wrong argument like any other mistake: in one line, without usage."""

    def error(self, message: str) -> None:
        raise InputError(f"{message} (--help lists the options)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that training and testing share; names and meanings are mmdet's."""
    add_model_arguments(parser)
    parser.add_argument(
        "--work-dir", type=given, help="folder of the results (default work_dirs/CONFIG_NAME)"
    )
    parser.add_argument(
        "--data-root", type=given, help="folder of the data set, in place of the config's"
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher",
    )
    # torch.distributed.launch passes it; torchrun sets the environment variable instead
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which model."""
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--net-config",
        type=given,
        help="architecture of the backbone: a net_config file or its text",
    )
    add_options_argument(parser)


def add_options_argument(parser: argparse.ArgumentParser) -> None:
    """The argument that changes settings of a config."""
    parser.set_defaults(cfg_options_given=[])
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=_Options,
        help="settings to override, key.inner=value; lists as key='[a,b]' or key=a,b",
    )


def given(value: str) -> str:
    """An argument that is not empty, as that of a shell's variable which is not set would be."""
    if not value.strip():
        raise argparse.ArgumentTypeError("is empty")
    return value


def asked_net_config(args: argparse.Namespace) -> str | None:
    """How the command line names an architecture, None where it leaves it to the config."""
    if args.net_config:
        return "--net-config"
    option = "model.backbone.net_config"
    return option if option in (args.cfg_options or {}) else None


class _Options(DictAction):
    """mmengine's reading of KEY=VALUE, with argparse's own message for what is not.

    ``namespace.cfg_options_given`` has the texts, for commands that pass them on.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.cfg_options_given = list(values)
        try:
            super().__call__(parser, namespace, values, option_string)
        except ValueError:
            raise argparse.ArgumentError(
                self, f"cannot read {' '.join(values)!r}; expected KEY=VALUE ..."
            ) from None


def user_path(path: str) -> str:
    """Absolute path of what a user typed, from the current folder or else the repository."""
    return str(locate(path))


def config_path(config: str) -> str:
    """:func:`user_path` of a config. Raises InputError if there is no such file."""
    path = user_path(config)
    if not os.path.isfile(path):
        raise InputError(f"config {config}: no such file")
    return path


def load_config(args: argparse.Namespace) -> Config:
    """Read a config and put the command line's arguments into it.

    Paths inside a config are relative to the repository, which becomes the current folder; paths
    on the command line are relative to where the user is.

    Raises:
        InputError: There is no such config, it cannot be read, or an argument does not fit it.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    work_dir = args.work_dir and os.path.abspath(os.path.expanduser(args.work_dir))
    data_root = args.data_root and user_path(args.data_root)
    cfg = load_model_config(args)
    check_launcher(args.launcher)
    cfg.launcher = args.launcher
    cfg.work_dir = work_dir or cfg.get("work_dir") or f"work_dirs/{Path(args.config).stem}"
    if data_root:
        set_data_root(cfg, data_root)
    _allow_no_workers(cfg)
    _set_device(cfg)
    return cfg


def load_model_config(args: argparse.Namespace) -> Config:
    """As :func:`load_config`, with the arguments of :func:`add_model_arguments` alone, of which
    ``net_config`` may be missing."""
    path = config_path(args.config)
    net_config = getattr(args, "net_config", None)
    if net_config and not is_text(net_config):
        net_config = Path(user_path(net_config))

    os.chdir(REPO)
    options = args.cfg_options or {}
    try:
        cfg = read_config(path)
    except Exception as error:  # configs are Python, and can raise anything
        raise InputError(f"config {args.config}: {_one_line(error)}") from None
    check_options(options, cfg)
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        raise InputError(f"--cfg-options {shown(options)}: {_one_line(error)}") from None
    try:
        check_settings(cfg)
    except InputError as error:
        raise InputError(f"config {args.config}: {error}") from None
    _set_net_config(cfg, net_config)
    return cfg


def read_config(path: str | Path) -> Config:
    """A config, whose scope's modules and own imports are imported."""
    with mmcv_ops.quiet_imports():
        cfg = Config.fromfile(path)
        import_scope(cfg.get("default_scope", "mmengine"))
    return cfg


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def import_scope(scope: str) -> None:
    """Import now what mmengine would import part by part at first use."""
    if scope != "mmengine":
        import_module(f"{scope}.utils").register_all_modules(init_default_scope=False)


def use_amp(cfg: Config) -> None:
    """Make a config's optimizer wrapper, or each of several, run forward in mixed precision.

    On a GPU in float16 with loss scaling, on CPU in bfloat16.
    """
    wrappers = cfg.optim_wrapper
    for wrapper in [wrappers] if "optimizer" in wrappers else [wrappers.weights, wrappers.arch]:
        if torch.cuda.is_available():
            wrapper.type = "AmpOptimWrapper"
            wrapper.loss_scale = "dynamic"
        else:
            wrapper.type = "CPUAmpOptimWrapper"


def set_data_root(cfg: Config, root: str) -> None:
    """Point every data set and evaluator of a config to another folder of the same layout.

    Raises:
        InputError: ``root`` is no folder, or the config has no ``data_root`` to replace.
    """
    if not os.path.isdir(root):
        raise InputError(f"data root {root}: is no folder")
    if not cfg.get("data_root"):
        raise InputError("--data-root: the config has no data_root for it to replace")
    old, new = cfg.data_root.rstrip("/") + "/", root.rstrip("/") + "/"

    def moved(value):
        if isinstance(value, dict):
            return ConfigDict({key: moved(inner) for key, inner in value.items()})
        if isinstance(value, list | tuple):
            return type(value)(moved(inner) for inner in value)
        if isinstance(value, str) and (value + "/").startswith(old):
            return new + value[len(old) :]
        return value

    cfg.data_root = new
    for split in ("train", "val", "test"):
        for part in (f"{split}_dataloader", f"{split}_evaluator"):
            if cfg.get(part):
                cfg[part] = moved(cfg[part])


def _set_net_config(cfg: Config, net_config: str | Path | None) -> None:
    """Write the architecture's text into the config, so that a dumped config stands alone."""
    backbone = cfg.model.get("backbone")
    if not isinstance(backbone, dict) or "net_config" not in backbone:
        if net_config:
            raise InputError("--net-config: the config's backbone takes no net_config")
        return
    try:
        backbone.net_config = str(NetConfig.parse(net_config or backbone.net_config))
    except InputError as error:
        raise InputError(str(error) if net_config else f"model.backbone: {error}") from None


def _allow_no_workers(cfg: Config) -> None:
    """Let a loader do without processes of its own, whatever the config says about keeping them."""
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader") or {}
        if loader.get("num_workers", 0) == 0:
            loader.pop("persistent_workers", None)
            loader.pop("prefetch_factor", None)


def _set_device(cfg: Config) -> None:
    """Let several processes run on CPU where there is no GPU: gloo instead of nccl.

    Raises:
        InputError: There are more processes on this machine than GPUs.
    """
    if cfg.launcher == "none":
        return
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if gpus == 0:
        cfg.setdefault("model_wrapper_cfg", dict(type="CPUDistributedDataParallel"))
        if cfg.launcher == "pytorch" and not torch.distributed.is_initialized():
            # mmengine's own start would ask for a CUDA device whatever the backend
            torch.distributed.init_process_group("gloo")
    elif processes > gpus:
        raise InputError(f"{processes} GPUs asked for, this machine has {gpus}")
