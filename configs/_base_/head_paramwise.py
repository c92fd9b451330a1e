# An option of segmentation's parameter adaptation: the head learns at ten times the learning rate,
# and BN and biases do not decay. The authors' code has it and does not use it
# (docs/differences.md). A config that adds this file to its _base_ takes it by
#     optim_wrapper = dict(paramwise_cfg=_base_.head_paramwise)
# A parameter follows the longest key that is in its name, and otherwise the two rules.
head_norms = [
    *(f"aspp_modules.{branch}.bn" for branch in range(4)),
    *(f"aspp_modules.{branch}.depthwise_conv.bn" for branch in (1, 2, 3)),
    *(f"aspp_modules.{branch}.pointwise_conv.bn" for branch in (1, 2, 3)),
    "image_pool.1.bn",
    "bottleneck.bn",
    "low_level.bn",  # these of DeepLabv3+ only
    "decoder.0.bn",
]
head_biases = ["conv_seg.bias", "decoder.1.conv.bias"]
head_paramwise = dict(
    norm_decay_mult=0.0,
    bias_decay_mult=0.0,
    custom_keys={
        "decode_head": dict(lr_mult=10.0),
        **{f"decode_head.{name}": dict(lr_mult=10.0, decay_mult=0.0) for name in head_norms},
        **{f"decode_head.{name}": dict(lr_mult=10.0, decay_mult=0.0) for name in head_biases},
    },
)
