# What default_runtime.py is to detection, with mmseg's scope and pictures.
_base_ = "default_runtime.py"

default_scope = "mmseg"
custom_imports = dict(imports=["models", "search", "engine", "fna_seg"])

visualizer = dict(type="SegLocalVisualizer", alpha=0.6)
