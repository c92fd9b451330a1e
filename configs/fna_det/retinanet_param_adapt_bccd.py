# Parameter adaptation of RetinaNet on blood cells (BCCD), the worked example of
# docs/new_dataset_detection.md, sized for one CPU or GPU with 4 images of 320x240.
_base_ = ["retinanet_param_adapt_coco.py", "../_base_/data/bccd.py", "../_base_/short_run.py"]

dataset, splits = _base_.dataset, _base_.splits
data_root = dataset.data_root
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = _base_.retinanet

resize = dict(_base_.resize, scale=_base_.image_scale)
train_pipeline = [_base_.load_image, _base_.load_boxes, resize, _base_.flip, _base_.pack]
test_pipeline = [_base_.load_image, resize, _base_.load_boxes, _base_.pack_tested]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(dataset, **splits.train, pipeline=train_pipeline),
)
val_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.val, pipeline=test_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(dataset, **splits.test, pipeline=test_pipeline))

# 52 iterations per epoch
train_cfg = dict(max_epochs=9, val_interval=3)
optim_wrapper = dict(optimizer=dict(_base_.adamw, lr=5e-4))
param_scheduler = [
    dict(_base_.warm_up, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=9, milestones=[6, 8], gamma=0.1),
]
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=4)
