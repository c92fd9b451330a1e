# Parameter adaptation of SSDLite on the embedded data set, 8 images of 256x128, sized for three
# quarters of a minute on two CPU cores: small images, few iterations.
_base_ = [
    "ssdlite_param_adapt_coco.py",
    "../_base_/data/toy_city_detection.py",
    "../_base_/short_run.py",
]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = _base_.ssdlite

resize = dict(_base_.resize, scale=_base_.image_scale)
# neither cropped nor on a larger canvas: so few iterations learn objects as they are tested
train_pipeline = [_base_.load_kept, _base_.load_boxes, resize, _base_.flip, _base_.pack]
test_pipeline = [_base_.load_image, resize, _base_.load_boxes, _base_.pack_tested]
train_dataloader = dict(
    batch_size=8,
    **_base_.in_process,
    dataset=dict(times=1, dataset=dict(dataset, **splits.train, pipeline=train_pipeline)),
)
val_dataloader = dict(
    **_base_.in_process, dataset=dict(dataset, **splits.val, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

# 240 images, 3 epochs of 30 iterations. The head takes larger steps, because its last BN must learn
# the scale of scores and deltas, which starts at 1.
train_cfg = dict(max_epochs=3, val_begin=100)  # evaluated once, by test.sh
optim_wrapper = dict(
    optimizer=dict(_base_.adamw, lr=2e-3, fused=True),
    paramwise_cfg=dict(custom_keys={"bbox_head": dict(lr_mult=10)}),
)
param_scheduler = [
    _base_.warm_up,
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=90, eta_min=0),
]
custom_hooks = _base_.cpu_hooks
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=8)
