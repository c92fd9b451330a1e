# Ablation (paper, table 6; docs/ablation.md): parameter adaptation from
# the seed's channels whose weights vary most.
_base_ = "../deeplabv3_fna_param_adapt.py"

model = dict(backbone=dict(init_cfg=dict(width="std")))
