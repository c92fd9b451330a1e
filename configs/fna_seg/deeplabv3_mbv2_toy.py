# The same with the seed's own architecture, MobileNetV2.
_base_ = "deeplabv3_fna_toy.py"

model = dict(backbone=dict(net_config="configs/net_configs/mobilenetv2.txt"))
