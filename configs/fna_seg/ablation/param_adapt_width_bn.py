# Ablation (paper, table 6; docs/ablation.md): parameter adaptation from
# the seed's channels of the largest BN weights.
_base_ = "../deeplabv3_fna_param_adapt.py"

model = dict(backbone=dict(init_cfg=dict(width="bn")))
