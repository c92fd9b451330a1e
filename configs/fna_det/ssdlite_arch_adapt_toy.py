# Architecture adaptation of SSDLite on the embedded data set, 4 images of 320x320, sized for a
# minute or two on two CPU cores: it shows the procedure; finding something takes longer.
_base_ = [
    "ssdlite_arch_adapt_coco.py",
    "../_base_/data/toy_city_detection.py",
    "../_base_/short_run.py",
]

dataset = _base_.dataset
data_root = dataset.data_root

model = _base_.ssdlite

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(times=1, dataset=dict(dataset, **_base_.splits.train)),
)

# 80 images in each half: 2 epochs of 20 weight steps, 10 architecture steps in the second
train_cfg = dict(max_epochs=2, arch_start_epoch=1, weight_steps=2)
optim_wrapper = _base_.search_optimizers
param_scheduler = [_base_.warm_up]
custom_hooks = _base_.cpu_hooks
default_hooks = dict(logger=_base_.log_often)
auto_scale_lr = dict(base_batch_size=4)
