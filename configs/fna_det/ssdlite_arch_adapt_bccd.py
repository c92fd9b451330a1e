# Architecture adaptation of SSDLite on blood cells (BCCD; docs/new_dataset_detection.md), sized for
# one CPU or GPU with 4 images, seen at 320x320. The first layer of stage 6, whose expanded
# activation is the head's first map, has ops of its own: _base_/search_space_ssdlite.py.
_base_ = ["ssdlite_arch_adapt_coco.py", "../_base_/data/bccd.py", "../_base_/short_run.py"]

dataset = _base_.dataset
data_root = dataset.data_root

model = _base_.ssdlite

# not on a larger canvas: as in the parameter adaptation
train_pipeline = [step for step in _base_.train_pipeline if step != _base_.expand]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(times=1, dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline)),
)

# 103 images for the weights, 102 for alpha: 20 epochs of 25 weight steps, from the 9th on an
# architecture step for each
train_cfg = dict(max_epochs=20, arch_start_epoch=8, weight_steps=1)
optim_wrapper = dict(
    weights=dict(
        optimizer=_base_.adamw, paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)})
    ),
    arch=_base_.search_optimizers.arch,
)
param_scheduler = [
    dict(_base_.warm_up, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=20, milestones=[12, 16], gamma=0.1),
]
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=4)
