"""The whole run, from what the stages of a rehearsal took.

A stage took seconds for its units of work, at a rate that was measured, and the rest for loading
and summing up. In the whole run the rest stays, and a unit takes as many times longer as it has
more operations. Bytes of tables grow with their rows. Memory grows by the weights that were cut and
by the tables that a stage holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data.manifest import Manifest
from flows.rehearsal.memory import tables, weights
from flows.rehearsal.work import Scale, operations, units
from tasks.tracking.memory import GPU, HOST

_TABLE = ".parquet"


@dataclass(frozen=True)
class Measured:
    """What a stage took.

    Attributes:
        rates: units a second, by ``<unit>/s``. tables: bytes of its tables. others: of the rest.
        gpu: peak bytes on a GPU, None without one.
    """

    stage: str
    seconds: float
    rates: Mapping[str, float]
    tables: float
    others: float
    host: float
    gpu: float | None

    @classmethod
    def of(cls, manifest: Manifest) -> Measured:
        """What the manifest of its artifact says."""
        said = dict(manifest.provenance.get("measured", {}))
        size = {name: float(file["bytes"]) for name, file in manifest.files.items()}
        in_tables = sum(bytes_ for name, bytes_ in size.items() if name.endswith(_TABLE))
        return cls(
            stage=manifest.stage,
            seconds=float(manifest.provenance.get("seconds", 0.0)),
            rates={name: rate for name, rate in said.items() if name.endswith("/s")},
            tables=in_tables,
            others=sum(size.values()) - in_tables,
            host=float(said.get(HOST, 0.0)),
            gpu=said.get(GPU),
        )


@dataclass(frozen=True)
class Estimate:
    """What a stage of the whole run takes.

    Attributes:
        unit, amount: the work that takes most of its time.
        gpu: None where it cannot be told from what was measured.
    """

    stage: str
    unit: str
    amount: float
    seconds: float
    bytes: float
    host: float
    gpu: float | None


def estimates(
    measured: Mapping[str, Measured], rehearsed: Scale, whole: Scale
) -> dict[str, Estimate]:
    """What each measured stage takes in the whole run."""
    amounts = units(rehearsed), units(whole)
    each = operations(rehearsed), operations(whole)
    found = {}
    for name, stage in measured.items():
        few, many = amounts[0][name], amounts[1][name]
        ratios = {
            unit: each[1].get(name, {}).get(unit, 1.0) / each[0].get(name, {}).get(unit, 1.0)
            for unit in few
        }
        parts = unit_seconds(stage, few)
        times = {u: s * many[u] / few[u] * ratios[u] for u, s in parts.items() if few[u]}
        rest = max(0.0, stage.seconds - sum(parts.values()))
        unit = max(times, key=times.__getitem__)
        rows = _rows(name, many) / _rows(name, few)
        more = tables(name, whole) - tables(name, rehearsed)
        cut = weights(name, whole.parts) - weights(name, rehearsed.parts)
        found[name] = Estimate(
            stage=name,
            unit=unit,
            amount=many[unit],
            seconds=rest + sum(times.values()),
            bytes=stage.tables * rows + stage.others,
            host=stage.host + more + cut,
            gpu=_gpu(stage, rehearsed, whole, cut),
        )
    return found


def unit_seconds(stage: Measured, amounts: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each unit's work: measured by its rate, else all that the others leave."""
    known = {u: n / stage.rates[f"{u}/s"] for u, n in amounts.items() if f"{u}/s" in stage.rates}
    unknown = [u for u in amounts if u not in known]
    left = max(0.0, stage.seconds - sum(known.values()))
    return {u: known.get(u, left / max(1, len(unknown))) for u in amounts}


def _rows(stage: str, amounts: Mapping[str, float]) -> float:
    """Rows of a stage's tables; a training's are those of its states."""
    return float(amounts.get("[IMG] states") or amounts.get("images") or max(amounts.values()))


def _gpu(stage: Measured, rehearsed: Scale, whole: Scale, cut: float) -> float | None:
    """Peak on the GPU: what is no weights of a training grows with the layers."""
    if stage.gpu is None:
        return None
    layers = whole.parts.language.layers / rehearsed.parts.language.layers
    if stage.stage in ("adapters", "joint"):
        held = weights(stage.stage, rehearsed.parts)
        return max(0.0, stage.gpu - held) * layers + held + cut
    images = whole.parts.generator.image_size, rehearsed.parts.generator.image_size
    samples = stage.stage in ("decision", "evaluate")
    return None if samples and images[0] != images[1] else stage.gpu + cut
