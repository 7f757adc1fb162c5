"""The prices of Google Cloud, from configs/prices.yaml or from a file of the same form."""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import Any

from configs.cloud import known_regions
from configs.errors import InputError, did_you_mean
from configs.rules import Number
from configs.section import FieldError, Section, shown
from configs.yaml_mapping import located, parse_mapping, read_yaml

BASE_REGION = "us-central1"
_OWN_NAME = "configs/prices.yaml"
_MULTIPLIER = "multiplier"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices(Section):
    """List prices of one region in US dollars, each a number of at least 0.

    Attributes:
      dataflow_vcpu_hour: a vCPU of a batch worker of Dataflow.
      dataflow_memory_gb_hour: a GB of its memory.
      flexrs_vcpu_hour: a vCPU with FlexRS.
      flexrs_memory_gb_hour: a GB of memory with FlexRS.
      dataflow_t4_hour: its GPU, an NVIDIA T4.
      dataflow_l4_hour: its GPU, an NVIDIA L4.
      disk_standard_gb_hour: a GB of its persistent disk, of type pd-standard.
      disk_ssd_gb_hour: a GB of its persistent disk, of type pd-ssd.
      shuffle_gb: a GB that passes Dataflow Shuffle.
      storage_class_a_10000: 10,000 operations of Cloud Storage that write or list.
      storage_class_b_10000: 10,000 operations of Cloud Storage that read.
    """

    dataflow_vcpu_hour: float
    dataflow_memory_gb_hour: float
    flexrs_vcpu_hour: float
    flexrs_memory_gb_hour: float
    dataflow_t4_hour: float
    dataflow_l4_hour: float
    disk_standard_gb_hour: float
    disk_ssd_gb_hour: float
    shuffle_gb: float
    storage_class_a_10000: float
    storage_class_b_10000: float

    def __post_init__(self) -> None:
        for name in _FIELDS:
            self._check(name, Number(at_least=0, unit="US dollars"))

    def times(self, multiplier: float) -> Prices:
        """The same prices, each multiplied by `multiplier`."""
        return Prices(**{name: multiplier * getattr(self, name) for name in _FIELDS})


_FIELDS = tuple(field.name for field in dataclasses.fields(Prices))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegionPrices:
    """The prices that a plan uses.

    Attributes:
      prices: the prices.
      region: the region of these prices: the requested one, or us-central1 if the file does not have that.
      source: the file, for people.
    """

    prices: Prices
    region: str
    source: str


def load_prices(region: str, path: str | None = None) -> RegionPrices:
    """Reads the prices of a region, or those of us-central1 if the file does not have the region.

    Args:
      region: the region in the recipe.
      path: a file to read instead of configs/prices.yaml.

    Raises:
      InputError: the file cannot be read, or has an error.
    """
    if path is None:
        raw = importlib.resources.files("configs").joinpath("prices.yaml").read_bytes()
    else:
        try:
            raw = read_yaml(path)
        except OSError as error:
            raise InputError(
                f"prices {path}: cannot be read ({error.strerror}). Give a local file of the form of {_OWN_NAME}."
            ) from error
    by_region = parse_prices(raw, where=path or _OWN_NAME)
    found = region if region in by_region else BASE_REGION
    return RegionPrices(prices=by_region[found], region=found, source=path or _OWN_NAME)


def parse_prices(raw: bytes, *, where: str) -> dict[str, Prices]:
    """Reads prices from the bytes of their YAML.

    Args:
      raw: UTF-8 YAML.
      where: the name of the file, for messages.

    Returns:
      Prices by region; us-central1 is among them.

    Raises:
      InputError: the bytes are not YAML, a region or field is unknown, a field is missing, or a value is not a number.
    """
    what = f"prices are a mapping of regions such as `{BASE_REGION}:` with prices in it"
    data, lines = parse_mapping(raw, where=where, what=what)
    with located(where, lines):
        for region, values in data.items():
            _check_block(region, values)
        if BASE_REGION not in data:
            raise InputError(f"{where}: has no block {BASE_REGION}, which other regions go by. Add it.")
        base = _prices_of(BASE_REGION, data[BASE_REGION])
        return {
            region: base.times(_multiplier(region, values)) if _MULTIPLIER in values else _prices_of(region, values)
            for region, values in data.items()
        }


def _check_block(region: Any, values: Any) -> None:
    regions = known_regions()
    if region not in regions:
        hint = did_you_mean(region, regions) if isinstance(region, str) else ""
        raise FieldError(str(region), f"is not a region of Google Cloud; configs/regions.txt lists them.{hint}")
    if not isinstance(values, dict):
        raise FieldError(region, f"must be a block of prices. Received: {shown(values)}.")
    known = _FIELDS if region == BASE_REGION else (*_FIELDS, _MULTIPLIER)
    for key in values:
        if key not in known:
            raise FieldError(
                f"{region}.{key}", f"is not a price; known here: {', '.join(known)}.{did_you_mean(str(key), known)}"
            )
    if _MULTIPLIER in values and len(values) > 1:
        raise FieldError(f"{region}.{_MULTIPLIER}", "must stand alone: it gives all prices of the region.")


def _multiplier(region: str, values: dict[str, Any]) -> float:
    value = values[_MULTIPLIER]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100:
        raise FieldError(
            f"{region}.{_MULTIPLIER}", f"must be a number above 0 and below 100. Received: {shown(value)}."
        )
    return float(value)


def _prices_of(region: str, values: dict[str, Any]) -> Prices:
    missing = [name for name in _FIELDS if name not in values]
    if missing:
        raise FieldError(region, f"lacks {', '.join(missing)}. Give every price, or a {_MULTIPLIER} alone.")
    try:
        return Prices(**values)
    except FieldError as error:
        problem = str(error).removeprefix(f"{error.field} ")
        raise FieldError(f"{region}.{error.field}", problem) from error
