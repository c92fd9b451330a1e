# ssdlite_arch_adapt_coco.py with shared weights and a budget: what it finds costs no more than the
# seed's architecture, and is the best of 32 proposals (docs/budget.md).
_base_ = "ssdlite_arch_adapt_coco.py"

model = dict(backbone=dict(share_weights=True))
train_cfg = dict(
    cost=dict(target="1.0 seed", negative=True),
    # each on 1280 images of the held-out half: 8 GPUs with 10 times 16
    ranking=dict(candidates=32, batches=10),
)
