# Architecture adaptation of RetinaNet on blood cells (BCCD), the worked example of
# docs/new_dataset_detection.md, sized for one CPU or GPU with 2 images of 320x240.
_base_ = ["retinanet_arch_adapt_coco.py", "../_base_/data/bccd.py", "../_base_/short_run.py"]

dataset = _base_.dataset
data_root = dataset.data_root
# height and width at which MAdds are counted
input_size = _base_.image_scale[::-1]

model = _base_.retinanet

resize = dict(_base_.resize, scale=_base_.image_scale)
train_pipeline = [_base_.load_image, _base_.load_boxes, resize, _base_.flip, _base_.pack]
arch_pipeline = [_base_.load_image, _base_.load_boxes, resize, _base_.pack]
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(dataset, **_base_.splits.train, pipeline=train_pipeline),
)

# The paper's 14 epochs and its start of alpha after 8, with 52 weight steps per epoch: 312
# architecture steps, so few that alpha's learning rate is 100 times the paper's.
train_cfg = dict(arch_pipeline=arch_pipeline, cost=dict(input_size=input_size))
optim_wrapper = dict(
    weights=dict(optimizer=dict(_base_.adamw, lr=5e-4)), arch=_base_.search_optimizers.arch
)
param_scheduler = [
    dict(_base_.warm_up, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=14, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=2)
