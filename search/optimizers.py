"""The two optimizers of a search: one for the weights, one for α."""

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from engine.model import unwrapped
from models import InputError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ArchAdaptOptimWrapperConstructor:
    """Builds the two optimizers: ``weights`` for all but α, ``arch`` for α.

    Args:
        optim_wrapper_cfg: ``weights`` and ``arch``, each an optimizer wrapper's config with its own
            ``optimizer``, ``clip_grad`` …; the weights' may have a ``paramwise_cfg``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        if set(optim_wrapper_cfg) != {"weights", "arch"} or paramwise_cfg is not None:
            raise InputError(
                f"optim_wrapper: has {', '.join(optim_wrapper_cfg)}; expected weights and arch "
                "(paramwise_cfg belongs into weights)"
            )
        self.weights, self.arch = optim_wrapper_cfg["weights"], optim_wrapper_cfg["arch"]

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        model = unwrapped(model)
        alphas = model.backbone.alphas()

        cfg = dict(self.weights)
        weights = DefaultOptimWrapperConstructor(cfg, cfg.pop("paramwise_cfg", None))(model)
        taken = {id(alpha) for alpha in alphas}
        groups = weights.optimizer.param_groups
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in taken]
        groups[:] = [group for group in groups if group["params"]]

        cfg = dict(self.arch)
        optimizer = OPTIMIZERS.build(dict(cfg.pop("optimizer"), params=alphas))
        cfg.setdefault("type", "OptimWrapper")
        arch = OPTIM_WRAPPERS.build(cfg, default_args=dict(optimizer=optimizer))
        if arch.clip_grad_kwargs:
            arch.grad_name = f"arch_{arch.grad_name}"  # logged next to the weights'
        return OptimWrapperDict(weights=weights, arch=arch)


def schedule_weights_only(schedulers: list | dict | None) -> dict | None:
    """A config's ``param_scheduler`` in mmengine's form for two optimizers; α's rate stays.

    Args:
        schedulers: Those of the weights, or a dict that says ``weights`` and ``arch`` itself.
    """
    if schedulers is None or (isinstance(schedulers, dict) and "weights" in schedulers):
        return schedulers
    return dict(weights=schedulers, arch=[])


def parameters_of(wrapper: OptimWrapper) -> list[nn.Parameter]:
    """What an optimizer learns."""
    groups = wrapper.optimizer.param_groups  # the wrapper's own may list one more
    return [parameter for group in groups for parameter in group["params"]]
