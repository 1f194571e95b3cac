"""The interface of a deployer."""

from typing import Protocol

from manifests.frozen import frozen
from manifests.kustomize import Opaque
from manifests.objects import Located
from manifests.patches import Subject
from manifests.snapshot import Snapshot
from manifests.sources.field_map import FieldMap
from manifests.tree import Tree


@frozen
class Deployment:
    """An object of a deployer that deploys an endpoint.

    `paths` are the directories that it deploys; `namespace` is the namespace of the deployed objects, "" if it sets none.
    """

    deployer: str
    name: str
    located: Located
    paths: tuple[str, ...]
    namespace: str = ""


class Deployer(Protocol):
    """Finds the object in the repository that deploys an endpoint. The bot's client is a `bot.clients.deployer.Deployer`."""

    @property
    def name(self) -> str:
        """The name in messages."""

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        """The object that deploys the endpoint `name`, or None if this deployer does not deploy it.

        `home` is the directory or the file of the endpoint's manifests; `fields` is its field map.
        """

    def patches(self, tree: Tree, deployment: Deployment, subject: Subject) -> tuple[Opaque, ...]:
        """The patches in the deployer's own object that may change what the endpoint's engine runs."""
