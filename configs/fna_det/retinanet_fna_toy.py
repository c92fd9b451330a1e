# RetinaNet FNA on the embedded data set, sized for minutes on two CPU cores: small images, a narrow
# neck and head, few iterations.
_base_ = ["retinanet_fna_param_adapt.py", "../_base_/toy_city_detection.py"]

data_root = _base_.toy_city.data_root
input_size = (192, 384)

model = _base_.toy_retinanet

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].scale = test_pipeline[1].scale = _base_.toy_scale
train_dataloader = dict(num_workers=1, dataset=dict(**_base_.toy_city, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(**_base_.toy_city, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "annotations/instances_val2017.json")
test_evaluator = val_evaluator

# 160 images, 3 epochs of 40 iterations. So few want an adaptive optimizer.
train_cfg = dict(max_epochs=3, val_interval=100)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=3, milestones=[2], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
