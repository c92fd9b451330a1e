#!/bin/sh
# The method on the embedded data set, in minutes on two CPU cores: the seed, parameter adaptation of
# the seed's and the published FNA architecture, evaluation, one table.
#   scripts/quickstart.sh
# A second run reuses what is there; an interrupted one goes on.
set -eu
. "$(dirname -- "$0")/setup.sh"
cd "$REPO"
results=work_dirs/quickstart

# Show the progress of a run as short lines; all of its output goes to a log file.
show() {
    mkdir -p "$results"
    log=$results/$1.log
    shift
    { "$@" 2>&1 || echo "failed"; } | tee -a "$log" | sed -nu \
        -e 's/.*Epoch(train) *\(\[[^]]*\]\[[^]]*\]\).*eta: \([0-9:]*\).*  loss: \([0-9.]*\).*/  training \1  eta \2  loss \3/p' \
        -e 's/.*INFO - \(Remap: .*\)/  \1/p' -e 's/^error: /  error: /p'
    if [ "$(tail -n 1 "$log")" = "failed" ]; then
        fail "stopped; $log says why"
    fi
}

# adapt NAME CONFIG [options]: train and test a network unless its metrics are there.
adapt() {
    name=$1 config=configs/fna_det/$2 work_dir=$results/$1
    shift 2
    if [ -f "$work_dir/metrics.json" ]; then
        echo "$name: already there"
        return
    fi
    echo "$name: parameter adaptation"
    show "$name" sh scripts/param_adapt.sh "$config" 1 --work-dir "$work_dir" --resume \
        --cfg-options randomness.seed=0 "$@"
    checkpoint=$(cat "$work_dir/last_checkpoint")
    echo "$name: evaluation"
    show "$name" sh scripts/test.sh "$config" "$checkpoint" 1 --work-dir "$work_dir" \
        --show-dir "$work_dir/detections"
}

sh scripts/get_seed.sh
"$PYTHON" -m datasets.toy_city --out data/toy_city
adapt mobilenetv2 retinanet_mbv2_toy.py
adapt fna retinanet_fna_toy.py
adapt fna_random retinanet_fna_toy.py model.backbone.init_cfg=None

echo
echo "RetinaNet on the embedded street scenes, equal training for each network:"
echo
"$PYTHON" -m engine.summary "MobileNetV2 (the seed's architecture), remapped=$results/mobilenetv2" \
    "FNA (published architecture), remapped=$results/fna" \
    "FNA (published architecture), random weights=$results/fna_random"
cat <<END

Ground truth (left) beside detections (right):  $REPO/$results/fna/detections
Configs, logs, checkpoints and metrics:         $REPO/$results
Images and annotations:                         $REPO/data/toy_city
Next: put COCO into data/coco (README.md says how) and run  scripts/param_adapt.sh
or write a config for your own data: docs/new_dataset.md
END
