# Architecture adaptation of DeepLabv3 on the embedded data set, 4 images of 256x128 (padded
# by a pixel, which no label has), sized for a minute on two CPU cores.
_base_ = [
    "deeplabv3_arch_adapt_cityscapes.py",
    "../_base_/data/toy_city_segmentation.py",
    "../_base_/short_run.py",
]

dataset = _base_.dataset
data_root = dataset.data_root
crop_size = (129, 257)
# height and width at which MAdds are counted
input_size = crop_size

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(ops=_base_.toy_ops, share_weights=True),
    decode_head=_base_.decode_head,
)

resize = dict(_base_.resize, scale=(256, 128))
train_pipeline = [_base_.load_kept, _base_.load[1], resize, _base_.flip, _base_.pack]
arch_pipeline = [_base_.load_kept, _base_.load[1], resize, _base_.pack]
train_dataloader = dict(
    batch_size=4,
    **_base_.in_process,
    dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline),
)

custom_hooks = _base_.cpu_hooks
# 120 images in each half: 3 epochs of 30 weight steps, in the last 2 as many architecture steps. A
# budget in place of a fixed weight of the cost, and shared weights, of which an architecture step
# takes half the time; then the best of 20 proposals that keep to the budget,
# which is just below the published network's.
train_cfg = dict(
    max_epochs=3,
    arch_start_epoch=1,
    split=dict(ratio=0.5),
    arch_pipeline=arch_pipeline,
    cost=dict(target="0.97 seed", rate=0.05, negative=True, input_size=input_size),
    ranking=dict(candidates=20, batches=6),
)
optim_wrapper = dict(
    # as in parameter adaptation
    weights=dict(
        optimizer=dict(_base_.adamw, lr=2e-3, betas=(0.9, 0.99), fused=True),
        paramwise_cfg=dict(custom_keys={"decode_head": dict(lr_mult=4)}),
    ),
    arch=dict(optimizer=dict(_base_.arch_adam, lr=0.3)),
)
param_scheduler = [_base_.warm_up]
default_hooks = dict(logger=_base_.log_often, checkpoint=dict(interval=1))
auto_scale_lr = dict(base_batch_size=4)
