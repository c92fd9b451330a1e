# Parameter adaptation under DeepLabv3+ on Cityscapes at output stride 8, 4 GPUs with 4 images each
# (paper, section 4.2): the last stages dilate more, and so do the head's branches.
_base_ = "deeplabv3plus_os16_param_adapt_cityscapes.py"

model = dict(
    backbone=dict(output_stride=8),
    decode_head=dict(dilations=(1, 12, 24, 36)),
)
