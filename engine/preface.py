"""How the log of a training begins: a few lines on the console, everything in the log's file."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from models import count_madds, count_params

from .architecture import own_net_config
from .model import unwrapped

# mmengine's, of many lines each, and what the lines here say too
_FOR_THE_FILE = (
    f"\n{'-' * 60}\nSystem environment:",
    "Config:\n",
    "Hooks will be executed in the following order:",
    "Distributed training is not used",
    "Checkpoints will be saved to",
    "paramwise_options -- ",
)


def keep_console_brief(logger: MMLogger) -> None:
    """Leave to the log's file what mmengine says of machine, config and hooks."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:  # a file's handler is one, too
            handler.addFilter(lambda record: not record.getMessage().startswith(_FOR_THE_FILE))


@HOOKS.register_module()
class Preface(Hook):
    """Logs, before the first iteration, what is trained, for how long, and where results go."""

    priority = "BELOW_NORMAL"  # after the checks, and after what is said of the data

    def before_train(self, runner: Runner) -> None:
        for line in (_model(runner), _schedule(runner), _results(runner)):
            runner.logger.info(line)


def _model(runner: Runner) -> str:
    model = unwrapped(runner.model)
    backbone = type(getattr(model, "backbone", model)).__name__
    line = f"Model: {type(model).__name__} on {backbone}, {count_params(model) / 1e6:.2f}M params"
    size = runner.cfg.get("input_size")
    if size and own_net_config(model):  # of a super network only paths have a cost
        line += f", {count_madds(model, size) / 1e9:.2f}B MAdds at {size[0]}x{size[1]}"
    return line


def _schedule(runner: Runner) -> str:
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        length = f"{loop.max_epochs} epochs of {len(loop.dataloader)} iterations"
    else:
        length = f"{loop.max_iters} iterations"
    batch_size, processes = runner.cfg.train_dataloader.batch_size, runner.world_size
    images = f"{batch_size * processes} images each"
    if processes > 1:
        images += f" ({batch_size} in each of {processes} processes)"
    return f"Schedule: {length}, {images}; learning rate {_learning_rates(runner.optim_wrapper)}"


def _learning_rates(wrapper: OptimWrapper) -> str:
    """That of each optimizer, once warm-up is over."""
    several = isinstance(wrapper, OptimWrapperDict)
    wrappers = dict(wrapper.items()) if several else {"": wrapper}
    rates = []
    for name, one in wrappers.items():
        group = one.optimizer.param_groups[0]
        rate = group.get("initial_lr", group["lr"])
        rates.append(f"{rate:g} ({type(one.optimizer).__name__}{name and f' of {name}'})")
    return ", ".join(rates)


def _results(runner: Runner) -> str:
    return f"Results go to {runner.work_dir}, the whole log to {runner.log_dir}"
