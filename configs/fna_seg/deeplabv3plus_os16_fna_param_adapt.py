# Parameter adaptation of the published FNA architecture under DeepLabv3+, output stride 16.
_base_ = [
    "../_base_/deeplabv3plus.py",
    "deeplabv3_fna_param_adapt.py",
]
