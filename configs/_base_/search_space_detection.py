# The search space of detection (paper, section 4.3): six searched stages after a fixed first one.
# Edit it freely: other kernel sizes and expansions ("k9_e4"), depths, strides, channels (of which
# model.neck.in_channels must be those of the backbone's out_indices).
search_space = dict(
    fixed_stage="[[32, 16], ['k3_e1'], 1]",
    channels=[24, 32, 64, 96, 160, 320],
    layers=[4, 4, 4, 4, 4, 1],
    strides=[2, 2, 2, 1, 2, 1],
    ops=["k3_e3", "k3_e6", "k5_e3", "k5_e6", "k7_e3", "k7_e6", "skip"],
    temperature=1.0,
)
