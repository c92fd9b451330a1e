# Ablation (paper, table 6; docs/ablation.md): parameter adaptation from
# the seed's channels of the largest L1 norm.
_base_ = "../deeplabv3_fna_param_adapt.py"

model = dict(backbone=dict(init_cfg=dict(width="l1")))
