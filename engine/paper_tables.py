"""The paper's params and MAdds beside those of this project's configs.

Run as ``python -m engine.paper_tables``. Counted on the models that the configs of the real runs
build, without weights, data or a GPU. Exits with 1 where a figure differs from the paper's in the
last digit that the paper prints.
"""

import sys
from dataclasses import dataclass
from decimal import Decimal

from models import count_madds, count_params

from .config import build_model
from .entry import run
from .summary import format_table


@dataclass(frozen=True)
class Row:
    """A network of the paper: its figures as printed, in millions and 10⁹, and its config here."""

    network: str
    framework: str
    params: str
    madds: str
    config: str


# The paper's results on Cityscapes and COCO (sections 4.2 and 4.3), but for others' networks.
ROWS = (
    Row("MobileNetV2", "DeepLabv3, OS 16", "2.57", "24.52", "fna_seg/deeplabv3_mbv2_param_adapt"),
    Row("FNA", "DeepLabv3, OS 16", "2.47", "24.17", "fna_seg/deeplabv3_fna_param_adapt"),
    Row("FNA", "DeepLabv3+, OS 16", "5.71", "210.11", "fna_seg/deeplabv3plus_os16_fna_param_adapt"),
    Row("FNA", "DeepLabv3+, OS 8", "5.71", "313.87", "fna_seg/deeplabv3plus_os8_fna_param_adapt"),
    Row("MobileNetV2", "RetinaNet", "11.49", "133.05", "fna_det/retinanet_mbv2_param_adapt"),
    Row("FNA", "RetinaNet", "11.73", "133.03", "fna_det/retinanet_fna_param_adapt"),
    Row("MobileNetV2", "SSDLite", "4.3", "0.8", "fna_det/ssdlite_mbv2_param_adapt"),
    Row("FNA", "SSDLite", "4.6", "0.9", "fna_det/ssdlite_fna_param_adapt"),
)


def compare(row: Row) -> tuple[dict[str, str], bool]:
    """A row of the table to print, and whether its figures are the paper's to the last digit."""
    model, cfg = build_model(f"configs/{row.config}.py")
    height, width = cfg.input_size
    cells = {"network": row.network, "framework": row.framework, "input": f"{height}x{width}"}
    equal = True
    for name, paper, counted, unit in (
        ("params", row.params, count_params(model), "M"),
        ("MAdds", row.madds, count_madds(model, cfg.input_size), "B"),
    ):
        here = Decimal(counted).scaleb(-6 if unit == "M" else -9)
        last_digit = Decimal(paper)
        equal &= here.quantize(last_digit) == last_digit
        cells |= {
            name: f"{here:.3f}{unit}",
            f"paper's {name}": f"{paper}{unit}",
            f"{name} off by": f"{here - last_digit:+.3f}{unit}",
        }
    return cells, equal


def main() -> None:
    table, equal = zip(*(compare(row) for row in ROWS), strict=True)
    print(format_table(list(table)))
    wrong = [
        f"{row.network} {row.framework}" for row, same in zip(ROWS, equal, strict=True) if not same
    ]
    if wrong:
        print(f"Not the paper's figures: {'; '.join(wrong)}", file=sys.stderr)
        sys.exit(1)
    print("\nEvery figure is the paper's, to the last digit that it prints.")


if __name__ == "__main__":
    run(main)
