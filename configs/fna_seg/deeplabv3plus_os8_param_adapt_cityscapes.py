# The same at output stride 8: the last stages dilate more, and so do the head's branches.
_base_ = "deeplabv3plus_os16_param_adapt_cityscapes.py"

model = dict(
    backbone=dict(output_stride=8),
    decode_head=dict(dilations=(1, 12, 24, 36)),
)
