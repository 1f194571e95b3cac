"""A possible endpoint as one file declares it, before it is combined with its Service, its volume and its aliases."""

from ruamel.yaml.nodes import MappingNode, Node

from manifests.arguments import Command
from manifests.frozen import frozen
from manifests.objects import Located
from manifests.sources.site import Site


@frozen
class Candidate:
    """One model server. `subject` is its part of the object, `pod` the spec of its pod if it has one."""

    kind: str
    name: str
    workload: Located
    subject: Node
    container: MappingNode
    command: Command
    pod: Node | None = None
    configs: tuple[Located, ...] = ()
    """The ConfigMaps that the container reads."""
    hosts: tuple[str, ...] = ()
    """Host names of the server, in addition to the Services that select it."""
    replicas: Site | None = None
    deployment: str = ""
    """The name of the Deployment in the cluster, if an operator or a chart creates it."""
    operated_kind: str = ""
    """The kind of the object that a chart creates and for which an operator creates the Deployment."""
    resources: str = ""
    """The file with the container's resources, if it is not the workload's file."""
    files: tuple[str, ...] = ()
    """Further files of the endpoint, such as a chart's values."""
    gpus: int | None = None
    """The number of GPUs, if it is not in the limits of the container."""
    application: Located | None = None
    """The Application whose values declare the server."""
    namespace: str = ""
    """The namespace that the release sets."""
    key: tuple[str, str] | None = None
    """The Secret and its key with the engine's API key, if a chart has separate fields for it."""
