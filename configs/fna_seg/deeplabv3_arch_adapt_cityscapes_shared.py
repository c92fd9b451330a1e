# deeplabv3_arch_adapt_cityscapes.py with shared weights and a budget: what it finds costs no more
# than the seed's architecture, and is the best of 32 proposals (docs/budget.md).
_base_ = "deeplabv3_arch_adapt_cityscapes.py"

model = dict(backbone=dict(share_weights=True))
train_cfg = dict(
    cost=dict(target="1.0 seed", negative=True),
    # each on 592 crops, the held-out fifth once
    ranking=dict(candidates=32, batches=37),
)
