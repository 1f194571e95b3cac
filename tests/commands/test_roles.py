"""People in the settings who have no effect: an unknown id, a guest, a person of another organisation."""

from bot.services import Services
from bot.settings.config import Roles
from bot.slack.roles import RoleMembers
from tests.commands.conftest import hf_endpoint, manifest, svc, workspace

__all__ = ["hf_endpoint", "manifest", "svc", "workspace"]

ROLES = Roles(approvers=("U0LEAD", "U0NOBODY", "U0GUEST", "U0STRANGER"), admins=("S0APPROVERS",))


async def test_only_people_whom_the_bot_accepts_have_a_role(svc: Services) -> None:
    """Other people are reported by name and setting."""
    config = svc.config.model_copy(update={"roles": ROLES})
    roles = RoleMembers(svc.slack, svc.directory, config)
    people = await roles.people()
    assert people.approvers == {"U0LEAD"}
    assert people.admins == {"U0LEAD", "U0ADMIN"}
    problems = await roles.unknown()
    assert [problem.split()[:2] for problem in problems] == [
        ["roles.approvers:", "U0NOBODY"],
        ["roles.approvers:", "U0GUEST"],
        ["roles.approvers:", "U0STRANGER"],
    ]


async def test_a_deleted_group_does_not_affect_other_approvers(svc: Services) -> None:
    """The group has no members, and is reported; the other approvers can still decide."""
    roles = RoleMembers(
        svc.slack, svc.directory, svc.config.model_copy(update={"roles": Roles(approvers=("S0GONE", "U0LEAD"))})
    )
    assert (await roles.people()).approvers == {"U0LEAD"}
    assert ["S0GONE" in problem for problem in await roles.unknown()] == [True]
