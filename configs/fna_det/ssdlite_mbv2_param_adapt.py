# The seed's own architecture as SSDLite's backbone: what FNA is compared with (paper: 22.1 AP).
_base_ = "ssdlite_fna_param_adapt.py"

model = dict(backbone=dict(net_config="configs/net_configs/mobilenetv2.txt"))
