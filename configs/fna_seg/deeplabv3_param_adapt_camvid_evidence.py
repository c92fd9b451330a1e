# The training of all rows of docs/evidence/camvid_deeplabv3.md, 4 crops of 193x193: as
# deeplabv3_param_adapt_camvid.py, but with more and smaller steps, scales nearer to the tested one,
# a head that learns faster, and more weight on rare classes.
_base_ = "deeplabv3_param_adapt_camvid.py"

rescale = dict(
    type="RandomChoice",
    transforms=[
        [dict(type="Resize", scale_factor=factor, keep_ratio=True)]
        for factor in (0.75, 1.0, 1.25, 1.5)
    ],
)
train_pipeline = [*_base_.load, rescale, _base_.crop, _base_.flip, _base_.pack]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

# The square root of median-frequency balancing (Eigen and Fergus, 2015), by the training labels: in
# full it would give bicyclists 60 times the weight of road.
class_weight = [0.53, 0.45, 2.19, 0.39, 1.0, 0.65, 1.96, 1.4, 0.89, 2.52, 2.98]
# mmseg's average leaves ignored pixels out by itself where there are weights
model = dict(decode_head=dict(loss_decode=dict(class_weight=class_weight, avg_non_ignore=False)))

train_cfg = dict(max_iters=1200, val_begin=10_000)  # evaluated once, by test.sh
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"decode_head": dict(lr_mult=4)}))
param_scheduler = [
    dict(_base_.warm_up, start_factor=0.01, end=40),
    dict(type="PolyLR", power=0.9, eta_min=0, by_epoch=False, begin=40, end=1200),
]
default_hooks = dict(checkpoint=dict(interval=50))
auto_scale_lr = dict(base_batch_size=4)
