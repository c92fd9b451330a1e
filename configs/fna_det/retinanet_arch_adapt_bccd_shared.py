# retinanet_arch_adapt_bccd.py with shared weights and a budget: what it finds costs no more than
# the seed's architecture, and is the best of 20 proposals (docs/budget.md).
_base_ = "retinanet_arch_adapt_bccd.py"

model = dict(backbone=dict(share_weights=True))
# As many architecture steps as with separate candidates, 312, each of twice the images, whose
# gradients are the less noisy; the mixture becomes nearly a single path.
train_cfg = dict(
    arch_batch_size=4,
    temperature=_base_.cooling,
    cost=dict(target="1.0 seed", **_base_.budget),
    ranking=dict(candidates=20, batches=25),  # the held-out half, once
)
optim_wrapper = dict(arch=dict(optimizer=_base_.steady_adam))
