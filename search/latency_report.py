"""After a search for latency: what was asked for, what the table says, what is measured."""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import nn

from engine.latency import Backend, RawOutputs, Timing, about, make_backend, measure
from models import BudgetTerm, CostTerm, InputError
from models.cost import fixed_cost
from models.errors import printable
from models.latency import Latency

_ROUNDS = 20


def compare_latency(
    term: CostTerm | BudgetTerm,
    networks: Mapping[str, nn.Module],
    whole: Mapping[str, nn.Module],
) -> tuple[dict, str]:
    """Measure networks as a search's table was measured.

    A search is not to fail by this, when all of it is done: what cannot be measured is said.

    Args:
        term: Of the search; its cost is a :class:`Latency`.
        networks: Backbones by their names.
        whole: Models with these backbones.

    Returns:
        What ``latency.json`` holds, in ms, and a line for the log.
    """
    table = term.cost.table
    record = dict(unit="ms", asked=term.target, table=table.conditions, networks={})
    for name, backbone in networks.items():
        record["networks"][name] = dict(
            net_config=str(backbone.net_config), table=_sum(term.cost, backbone)
        )
    try:
        backend = make_backend(table.backend, table.threads, table.kind)
        record["measured_by"] = about(backend)
        for name, timings in _measure(backend, term.cost, networks, whole).items():
            record["networks"][name] |= timings
    except Exception as error:  # an exporter or a device can raise anything
        record["not_measured"] = printable(f"{error}".strip().partition("\n")[0], 200)
    return record, _describe(record, table.device)


def _sum(cost: Latency, backbone: nn.Module) -> float | None:
    try:
        return fixed_cost(backbone, cost, cost.input_size)
    except InputError:  # a seed may have ops that are not in the search space
        return None


def _measure(
    backend: Backend,
    cost: Latency,
    networks: Mapping[str, nn.Module],
    whole: Mapping[str, nn.Module],
) -> dict[str, dict[str, dict]]:
    image = [torch.randn(cost.table.batch, 3, *cost.input_size)]
    jobs = {(name, "backbone"): (network, image) for name, network in networks.items()}
    jobs |= {(name, "model"): (RawOutputs(network), image) for name, network in whole.items()}
    timings: dict[str, dict[str, dict]] = {}
    for (name, part), rounds in measure(backend, jobs, _ROUNDS).items():
        timings.setdefault(name, {})[part] = asdict(Timing.of(rounds))
    return timings


def _describe(record: Mapping, device: str) -> str:
    asked = f"asked for at most {record['asked']:.2f} ms; " if record["asked"] else ""
    networks = "; ".join(_network(name, row) for name, row in record["networks"].items())
    line = f"Latency of the backbone: {asked}{networks} ({record['table']})"
    if reason := record.get("not_measured"):
        return f"{line}; not measured here: {reason}"
    if (here := record["measured_by"]["device"]) != device:
        line += f"; measured here, on another device than the table's: {here}"
    return line


def _network(name: str, row: Mapping) -> str:
    parts = [f"{row['table']:.2f} by the table"] if row["table"] is not None else []
    if timing := row.get("backbone"):
        parts.append(f"{timing['median']:.2f} measured (spread {100 * timing['spread']:.1f} %)")
    if timing := row.get("model"):
        parts.append(f"whole model {timing['median']:.2f}")
    return f"{name} {', '.join(parts) or 'not in the table'}"
