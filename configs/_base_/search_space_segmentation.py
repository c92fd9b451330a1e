# The search space of segmentation (paper, section 4.2): detection's, but for two deeper stages.
_base_ = "search_space_detection.py"

search_space = dict(layers=[4, 4, 6, 6, 4, 1])
