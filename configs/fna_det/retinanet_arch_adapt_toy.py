# Architecture adaptation of RetinaNet on the embedded data set, 2 images of 384x192, sized for a
# minute or two on two CPU cores: it shows the procedure; finding something takes longer.
_base_ = [
    "retinanet_arch_adapt_coco.py",
    "../_base_/data/toy_city_detection.py",
    "../_base_/short_run.py",
]

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

# 80 images in each half: 2 epochs of 40 weight steps, in the second half as many architecture steps
train_cfg = dict(
    max_epochs=2,
    arch_start_epoch=1,
    weight_steps=2,
    arch_pipeline=arch_pipeline,
    cost=dict(input_size=input_size),
)
optim_wrapper = _base_.search_optimizers
param_scheduler = [_base_.warm_up]
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=2)
