# Architecture adaptation on the embedded data set, sized for a minute or two on two CPU cores: it
# shows the procedure; a search that finds something takes longer.
_base_ = ["ssdlite_arch_adapt.py", "../_base_/toy_city_detection.py"]

data_root = _base_.toy_city.data_root

model = dict(bbox_head=dict(num_classes=9))

train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(times=1, dataset=dict(**_base_.toy_city))
)

# 80 images in each half: 2 epochs of 20 weight steps, 10 architecture steps in the second
train_cfg = dict(max_epochs=2, arch_start_epoch=1, weight_steps=2)
# few steps need large ones
optim_wrapper = dict(
    weights=dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05)),
    arch=dict(optimizer=dict(lr=3e-2)),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20),
]
custom_hooks = [dict(type="CheckModel"), dict(type="ChannelsLast")]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
