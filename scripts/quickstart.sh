#!/bin/sh
# The whole method on the embedded data set, in minutes on two CPU cores: seed, architecture
# adaptation, parameter adaptation, evaluation, one table.
#   scripts/quickstart.sh [det | ssdlite | seg | all]
# det, the default, is RetinaNet, seg DeepLabv3. Run it again to resume after
# an interruption; finished steps are reused.
set -eu
case ${1:-det} in
    det)
        title=RetinaNet configs=configs/fna_det/retinanet results=work_dirs/quickstart
        pictures=detections data_set=coco
        ;;
    ssdlite)
        title=SSDLite configs=configs/fna_det/ssdlite results=work_dirs/quickstart_ssdlite
        pictures=detections data_set=coco
        ;;
    seg)
        title=DeepLabv3 configs=configs/fna_seg/deeplabv3 results=work_dirs/quickstart_seg
        pictures=segmentations data_set=cityscapes
        ;;
    all)
        for task in det ssdlite seg; do sh "$0" "$task"; done
        exit
        ;;
    *)
        echo "error: no quickstart for $1, expected det, ssdlite, seg or all" >&2
        exit 2
        ;;
esac
search=$results/search
. "$(dirname -- "$0")/setup.sh"
cd "$REPO"

# show LOG COMMAND: run it; its output goes to a log file, its progress to the screen as short lines.
show() {
    log=$1
    shift
    mkdir -p "$(dirname "$log")"
    { "$@" 2>&1 || echo "failed"; } | tee -a "$log" | sed -nu \
        -e 's/.*Epoch(train) *\(\[[^]]*\]\[[^]]*\]\).*eta: \([0-9:]*\).*  loss: \([0-9.]*\).*/  training \1  eta \2  loss \3/p' \
        -e 's/.*Iter(train) *\[ *\([^]]*\)\].*eta: \([0-9:]*\).*  loss: \([0-9.]*\).*/  training [\1]  eta \2  loss \3/p' \
        -e 's/.*INFO - \(BN statistics .*\)/  \1/p' \
        -e 's/.*INFO - \(Remap: .*\)/  \1/p' -e 's/.*INFO - \(Architecture after .*\)/  \1/p' \
        -e 's/^error: /  error: /p'
    if [ "$(tail -n 1 "$log")" = "failed" ]; then
        fail "stopped; $log says why"
    fi
}

# adapt NAME CONFIG [options]: adapt and evaluate a network, unless its metrics are there.
adapt() {
    name=$1 config=$2 work_dir=$results/$1
    shift 2
    if [ -f "$work_dir/metrics.json" ]; then
        echo "$name: already there"
        return
    fi
    echo "$name: parameter adaptation"
    show "$work_dir.log" sh scripts/param_adapt.sh "$config" 1 --work-dir "$work_dir" --resume "$@"
    echo "$name: evaluation"
    show "$work_dir.log" sh scripts/test.sh "$config" "$(cat "$work_dir/last_checkpoint")" 1 \
        --work-dir "$work_dir" --show-dir "$work_dir/$pictures" "$@"
}

# Only networks that were trained alike may stand in one table.
stamp=$(cat configs/_base_/*.py configs/_base_/data/*.py "$(dirname $configs)"/*.py configs/net_configs/*.txt | cksum)
if [ -d "$results" ] && [ "$(cat "$results/stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "The configs have changed since $results was made: starting anew"
    rm -rf "$results"
fi
mkdir -p "$results"
echo "$stamp" >"$results/stamp"

sh scripts/get_seed.sh
"$PYTHON" -m datasets.toy_city --out data/toy_city
if [ -f "$search/done" ]; then
    echo "search: already there"
else
    echo "search: architecture adaptation"
    rm -rf "$results/found" # it had what another search found
    show "$search.log" sh scripts/arch_adapt.sh "${configs}_arch_adapt_toy.py" 1 \
        --work-dir "$search" --resume
    touch "$search/done"
fi
adapt mobilenetv2 "${configs}_param_adapt_toy.py" --net-config configs/net_configs/mobilenetv2.txt
adapt fna "${configs}_param_adapt_toy.py"
adapt found "${configs}_param_adapt_toy.py" --net-config "$search/net_config.txt"
adapt fna_random "${configs}_param_adapt_toy.py" --cfg-options model.backbone.init_cfg=None

echo
echo "$title on the embedded street scenes, equal training for each network:"
echo
"$PYTHON" -m engine.tables tested "MobileNetV2 (the seed's architecture), remapped=$results/mobilenetv2" \
    "FNA (published architecture), remapped=$results/fna" \
    "found here by a very short search, remapped=$results/found" \
    "FNA (published architecture), random weights=$results/fna_random"
cat <<END

Found architecture:                               $REPO/$search (net_config.txt, architecture.png, alpha.png)
Ground truth (left) and predictions (right):      $REPO/$results/fna/$pictures
Configs, logs, checkpoints and metrics:           $REPO/$results
Images and annotations:                           $REPO/data/toy_city
Next: put your data into data/$data_set (docs/usage.md says how) and run  scripts/arch_adapt.sh ${configs}_arch_adapt_$data_set.py
or write a config for your own data: docs/new_dataset.md
END
