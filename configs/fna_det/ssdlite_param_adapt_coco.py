# Parameter adaptation of the published SSDLite architecture on COCO, 8 GPUs with 64 images each
# (paper, section 4.3: 23.0 AP in the text, 23.3 in the table).
_base_ = [
    "../_base_/ssdlite.py",
    "../_base_/coco_ssd.py",
    "../_base_/default_runtime.py",
]

sync_bn = "torch"
# all images have one size, for which cuDNN may look for the fastest way
env_cfg = dict(cudnn_benchmark=True)
# height and width at which MAdds are counted
input_size = (320, 320)

train_cfg = dict(type="SeededEpochLoop", max_epochs=60, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="RMSprop", lr=0.2, eps=1.0, momentum=0.9, weight_decay=4e-5),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=60, milestones=[36, 50, 56], gamma=0.1),
]
# for --auto-scale-lr: 8 GPUs with 64 images each
auto_scale_lr = dict(enable=False, base_batch_size=512)
# the best so far, beside the last ones
default_hooks = dict(checkpoint=dict(save_best="coco/bbox_mAP"))
