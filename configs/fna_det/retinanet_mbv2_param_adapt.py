# The seed's own architecture as RetinaNet's backbone: what FNA is compared with (paper: 32.8 AP).
_base_ = "retinanet_fna_param_adapt.py"

model = dict(backbone=dict(net_config="configs/net_configs/mobilenetv2.txt"))
