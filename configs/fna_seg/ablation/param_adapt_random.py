# Ablation (paper, table 5; docs/ablation.md): parameter adaptation from random weights.
_base_ = "../deeplabv3_fna_param_adapt.py"

model = dict(backbone=dict(init_cfg=None))
