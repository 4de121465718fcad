"""Contracts that users' own cells and networks-in transformers can be checked against."""

from sklyap.testing.cells import check_cell
from sklyap.testing.transformers import check_network_transformer

__all__ = ["check_cell", "check_network_transformer"]
