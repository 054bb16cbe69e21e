"""Measured numbers: how sure they are, where they come from, and the store that keeps them."""

from zsar.results.cell import Cell, Key, Task, Unit
from zsar.results.provenance import check, commit, device_class, machine, provenance
from zsar.results.statistics import (
    Z95,
    Estimate,
    Paired,
    estimate,
    holm,
    interval,
    mean_interval,
    pack_bits,
    paired,
    unpack_bits,
)
from zsar.results.store import Store

__all__ = ["Z95", "Cell", "Estimate", "Key", "Paired", "Store", "Task", "Unit", "check", "commit", "device_class",
           "estimate", "holm", "interval", "machine", "mean_interval", "pack_bits", "paired", "provenance",
           "unpack_bits"]
