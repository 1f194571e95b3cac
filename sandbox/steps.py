"""The steps of a story: actions of people and systems, and expectations."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Command:
    """`@dev /gpu up coder-chat`: a slash command; the step ends when the bot has acknowledged it."""

    user: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Click:
    """`@lead clicks "Approve"`: the newest visible button with that label."""

    user: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Fill:
    """`@dev fills "Label" with "value"`: a field of the user's open modal."""

    user: str
    label: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Say:
    """`@dev says "@stoker status"`: a message in the channel, or in the thread of the newest message with `under`."""

    user: str
    text: str
    under: str = ""


@dataclass(frozen=True, kw_only=True)
class Write:
    """`@dev writes "status"`: a direct message to the bot."""

    user: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Pick:
    """`@dev picks "Operation status" on "Bring up"`: an entry in a message's ⋮ menu."""

    user: str
    name: str
    on: str


@dataclass(frozen=True, kw_only=True)
class OpenHome:
    """`@dev opens home`: the bot's Home tab; the user's next click looks there first."""

    user: str


@dataclass(frozen=True, kw_only=True)
class Submit:
    """`@dev submits`: submits the user's open modal."""

    user: str


@dataclass(frozen=True, kw_only=True)
class Expect:
    """`expect "text" within 10s`: the text has become visible at least once since the last action."""

    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectNot:
    """`expect not "text" within 2s`: the text does not become visible between the last action and the end of that time."""

    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectNotified:
    """`expect notified @lead "text" within 10s`: Slack has sent a notification with this text since the last action."""

    user: str
    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectNotNotified:
    """`expect not notified @dev "text" within 5s`: none was sent since the last action, and none is sent during that time."""

    user: str
    text: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectReplicas:
    """`expect replicas coder-chat 0 within 60s`: the Deployment's replicas in the cluster, independent of messages."""

    name: str
    replicas: int
    within: float


@dataclass(frozen=True, kw_only=True)
class SlackDeletes:
    """`slack deletes the card`: deletes the newest message of the bot in the channel."""


@dataclass(frozen=True, kw_only=True)
class SlackArchives:
    """`slack archives the channel`, `slack unarchives the channel`: changes the state of the bot's channel."""

    archived: bool


@dataclass(frozen=True, kw_only=True)
class SlackMembership:
    """`slack removes the bot`, `slack invites the bot`: the bot leaves or joins the channel."""

    member: bool


@dataclass(frozen=True, kw_only=True)
class Checks:
    """`github checks pass`: the checks of the newest open pull request complete."""

    passed: bool


@dataclass(frozen=True, kw_only=True)
class ChecksAppear:
    """`github checks appear`: check runs exist and are still running."""


@dataclass(frozen=True, kw_only=True)
class ChecksNone:
    """`github checks none`: no check runs appear."""


@dataclass(frozen=True, kw_only=True)
class PushToPull:
    """`github pushes "PATH" as "TEXT"`: adds a commit to the newest open pull request's branch.

    With `old`, only that part of the file is replaced.
    """

    path: str
    text: str
    old: str = ""


@dataclass(frozen=True, kw_only=True)
class Retarget:
    """`github retargets to "release"`: changes the base of the newest open pull request."""

    branch: str


@dataclass(frozen=True, kw_only=True)
class ChangeMain:
    """`main changes "PATH" as "TEXT"`: adds a commit to the main branch; `old` is as in `PushToPull`."""

    path: str
    text: str
    old: str = ""


@dataclass(frozen=True, kw_only=True)
class ExpectMerged:
    """`expect merged to "main"`: the newest pull request is merged into that branch."""

    branch: str
    within: float


@dataclass(frozen=True, kw_only=True)
class ExpectNotMerged:
    """`expect not merged`: the newest pull request is not merged, and stays unmerged during that time."""

    within: float


@dataclass(frozen=True, kw_only=True)
class Merge:
    """`github merges`: merges the newest open pull request on GitHub."""


@dataclass(frozen=True, kw_only=True)
class Close:
    """`github closes`: closes the newest open pull request on GitHub."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """`traffic coder-chat 2/s for 10s`: tenants use a model; the step ends with the traffic."""

    model: str
    per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """`kubectl scale coder-fim 1`: scales a Deployment with kubectl instead of the bot."""

    name: str
    replicas: int


@dataclass(frozen=True, kw_only=True)
class RedisStops:
    """`redis stops`: stops Redis."""


@dataclass(frozen=True, kw_only=True)
class RedisStarts:
    """`redis starts`: starts Redis on the same port, with the same data."""


@dataclass(frozen=True, kw_only=True)
class RedisFlushed:
    """`redis is flushed`: deletes all data in Redis."""


@dataclass(frozen=True, kw_only=True)
class BotKilled:
    """`bot is killed`: the bot gets SIGKILL and is restarted."""


@dataclass(frozen=True, kw_only=True)
class NodeReclaimed:
    """`node is reclaimed`: the cloud reclaims the GPU node."""


@dataclass(frozen=True, kw_only=True)
class EngineCrashes:
    """`engine crashes coder-chat`: the engine of a ready model dies, also after restarts."""

    model: str


@dataclass(frozen=True, kw_only=True)
class EngineSays:
    """`engine says "LOG LINE" coder-chat`: adds a line to the log of a running engine."""

    line: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Break:
    """`break no-stock`: activates a fault."""

    fault: str


@dataclass(frozen=True, kw_only=True)
class Mend:
    """`mend no-stock`: ends a fault."""

    fault: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """`wait 2s`: waits without a condition."""

    seconds: float


Gesture = Command | Say | Write | Pick | OpenHome | Click | Fill | Submit
"""An action of a person in Slack."""
Expectation = Expect | ExpectNot | ExpectNotified | ExpectNotNotified | ExpectReplicas | ExpectMerged | ExpectNotMerged
"""A state that must be reached, or must not be reached."""
SlackEvent = SlackDeletes | SlackArchives | SlackMembership
RepositoryEvent = Checks | ChecksAppear | ChecksNone | PushToPull | Retarget | ChangeMain | Merge | Close
"""An event in the GitOps repository or its pull requests."""
ClusterEvent = (
    Traffic | Scale | RedisStops | RedisStarts | RedisFlushed | BotKilled | NodeReclaimed | EngineCrashes | EngineSays
    | Break | Mend
)  # fmt: skip
"""An event in the cluster, in the bot, or in a system that the bot depends on."""
Step = Gesture | Expectation | SlackEvent | RepositoryEvent | ClusterEvent | Wait
