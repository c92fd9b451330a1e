# SSDLite's search space (paper, section 4.3): detection's, but for one layer. Its expanded
# activation is the head's first map, of 6 x 96 channels whichever kernel the search prefers.
_base_ = "search_space_detection.py"

search_space = dict(
    layer_ops={"6.0": ["k3_e6", "k5_e6", "k7_e6"]},
    temperature=0.9,
)
