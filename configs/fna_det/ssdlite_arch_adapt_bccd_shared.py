# ssdlite_arch_adapt_bccd.py with shared weights and a budget: what it finds costs no more than the
# seed's architecture, and is the best of 20 proposals (docs/budget.md).
_base_ = "ssdlite_arch_adapt_bccd.py"

model = dict(backbone=dict(share_weights=True))
train_cfg = dict(
    temperature=_base_.cooling,
    cost=dict(target="1.0 seed", **_base_.budget),
    ranking=dict(candidates=20, batches=25),  # the held-out half, once
)
optim_wrapper = dict(arch=dict(optimizer=_base_.steady_adam))
