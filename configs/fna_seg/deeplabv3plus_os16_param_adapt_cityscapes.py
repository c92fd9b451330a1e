# Parameter adaptation of the published FNA architecture under DeepLabv3+ on Cityscapes, 4 GPUs with
# 4 images each (paper, section 4.2): DeepLabv3's run with a decoder that adds the map of stride 4.
_base_ = "deeplabv3_param_adapt_cityscapes.py"

model = dict(
    backbone=dict(out_indices=(2, 7)),
    decode_head=dict(type="ASPPDecoderHead", in_channels=(24, 320), low_level_channels=48),
)
