"""Each kind of operation has a description, a request type, and a workflow."""

from typing import get_args

import pytest

from bot.domain.kinds import SPECS, Kind
from bot.domain.operations import OPERATIONS
from bot.domain.requests import AnyRequest
from bot.services import Services
from bot.wiring import Wiring
from bot.workflows import Workflows
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]


async def test_every_kind_is_in_each_table(svc: Services) -> None:
    assert set(Kind) == set(SPECS) == set(OPERATIONS) == set(Wiring(svc).of(Workflows).table())
    assert {request.model_fields["kind"].default for request in get_args(AnyRequest)} == set(Kind)


@pytest.mark.parametrize("kind", Kind)
async def test_a_kind_that_needs_an_approval_has_a_plan(svc: Services, kind: Kind) -> None:
    assert (Wiring(svc).of(Workflows).table()[kind].plan is not None) == SPECS[kind].needs_approval
