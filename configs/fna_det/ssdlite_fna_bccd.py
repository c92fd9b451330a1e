# Parameter adaptation of SSDLite on blood cells (BCCD; docs/new_dataset_detection.md): 205 training
# images of 640x480, seen at 320x320, sized for one CPU or GPU.
_base_ = "ssdlite_fna_param_adapt.py"

# in the order of the annotation files
metainfo = dict(classes=("RBC", "WBC", "Platelets"))
data_root = "data/bccd/"
files = dict(metainfo=metainfo, data_root=data_root, data_prefix=dict(img="images/"))

model = dict(bbox_head=dict(num_classes=3))

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(dataset=dict(**files, ann_file="annotations/instances_train.json")),
)
val_dataloader = dict(
    num_workers=1, dataset=dict(**files, ann_file="annotations/instances_val.json")
)
test_dataloader = dict(
    num_workers=1, dataset=dict(**files, ann_file="annotations/instances_test.json")
)
val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = dict(ann_file=data_root + "annotations/instances_test.json")

# 12 epochs of 5 x 205 images, 128 iterations each: so few want an adaptive optimizer
train_cfg = dict(max_epochs=12, val_interval=4)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=8)
randomness = dict(seed=0)
