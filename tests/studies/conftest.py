"""Sweeps of orders, for tests of their numbers and of their exhibits; nobody changes them."""

import pytest
from summaries import (
    orders_sweep,
)


@pytest.fixture(scope="module")
def whole():
    """One order, three seeds; to be left as it is."""
    return orders_sweep()


@pytest.fixture(scope="module")
def many():
    """Six orders, two seeds; to be left as it is."""
    return orders_sweep(2, 6)
