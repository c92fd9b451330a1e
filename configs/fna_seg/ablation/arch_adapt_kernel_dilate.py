# Ablation (paper, table 6; docs/ablation.md): architecture adaptation from
# the seed's 3x3 spread over larger kernels.
_base_ = "../deeplabv3_arch_adapt.py"

model = dict(backbone=dict(init_cfg=dict(kernel="dilate")))
