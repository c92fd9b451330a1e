# The seed's own architecture on the embedded data set, all else as for FNA.
_base_ = "ssdlite_fna_toy.py"

model = dict(backbone=dict(net_config="configs/net_configs/mobilenetv2.txt"))
