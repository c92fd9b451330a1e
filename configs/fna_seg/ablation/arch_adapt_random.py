# Ablation (paper, table 5; docs/ablation.md): architecture adaptation from random weights.
_base_ = "../deeplabv3_arch_adapt.py"

model = dict(backbone=dict(init_cfg=None))
