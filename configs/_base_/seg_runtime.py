# What default_runtime.py is to detection, with mmseg's scope and pictures.
_base_ = "default_runtime.py"

default_scope = "mmseg"
custom_imports = dict(imports=["models", "search", "engine", "fna_seg"])

# crops and windows have one size, for which cuDNN may look for the fastest way
env_cfg = dict(cudnn_benchmark=True)
visualizer = dict(type="SegLocalVisualizer", alpha=0.6)
