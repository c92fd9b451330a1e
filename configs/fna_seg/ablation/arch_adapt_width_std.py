# Ablation (paper, table 6; docs/ablation.md): architecture adaptation from
# the seed's channels whose weights vary most.
_base_ = "../deeplabv3_arch_adapt.py"

model = dict(backbone=dict(init_cfg=dict(width="std")))
