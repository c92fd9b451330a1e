# The training of all rows of docs/evidence/bccd_ssdlite.md: ssdlite_param_adapt_bccd.py with larger
# steps that shrink to nothing.
_base_ = "ssdlite_param_adapt_bccd.py"

train_cfg = dict(max_epochs=12, val_begin=100)  # evaluated once, by test.sh
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(_base_.warm_up, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, end=300, eta_min=0),
]
custom_hooks = _base_.cpu_hooks
