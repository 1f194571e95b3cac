from pathlib import Path

import pytest

from manifests.contract import Layout
from manifests.sizing import Machine
from manifests.tree import Checkout, Files

PLATFORM = Path(__file__).parents[2] / "sandbox" / "platform"


@pytest.fixture
def platform() -> Files:
    """The sample platform, in memory."""
    checkout = Checkout(PLATFORM)
    return Files({path: text for path in checkout.files("") if (text := checkout.read(path)) is not None})


@pytest.fixture
def layout() -> Layout:
    return Layout()


@pytest.fixture
def machine() -> Machine:
    return Machine()
