# Architecture adaptation of RetinaNet on the embedded data set, 4 images of 256x128, sized for a
# minute on two CPU cores.
_base_ = [
    "retinanet_arch_adapt_coco.py",
    "../_base_/data/toy_city_detection.py",
    "../_base_/short_run.py",
]

dataset = _base_.dataset
data_root = dataset.data_root
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = dict(_base_.retinanet, backbone=dict(ops=_base_.toy_ops, share_weights=True))

resize = dict(_base_.resize, scale=_base_.image_scale)
train_pipeline = [_base_.load_kept, _base_.load_boxes, resize, _base_.flip, _base_.pack]
arch_pipeline = [_base_.load_kept, _base_.load_boxes, resize, _base_.pack]
train_dataloader = dict(
    batch_size=4,
    **_base_.in_process,
    dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline),
)

# 120 images in each half: 5 epochs of 30 weight steps, in the last 4 as many architecture steps. A
# budget in place of a fixed weight of the cost, and shared weights, of which an architecture step
# takes half the time; then the best of 12 proposals that keep to the budget,
# which is just below the published network's.
train_cfg = dict(
    max_epochs=5,
    arch_start_epoch=1,
    arch_pipeline=arch_pipeline,
    cost=dict(target="0.99 seed", rate=0.05, negative=True, input_size=input_size),
    ranking=dict(candidates=12, batches=6),
)
optim_wrapper = dict(weights=dict(optimizer=_base_.adamw), arch=dict(optimizer=_base_.arch_adam))
param_scheduler = [_base_.warm_up]
custom_hooks = _base_.cpu_hooks
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=4)
