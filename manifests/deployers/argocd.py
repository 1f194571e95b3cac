"""Argo CD: find the Application that deploys an endpoint. Source: argo-cd.readthedocs.io/en/stable/operator-manual."""

import posixpath

from manifests.deployers.deployer import Deployment
from manifests.edit import find, items, value
from manifests.kustomize import Opaque, leads_to
from manifests.layout import Layout
from manifests.memory import remembered
from manifests.objects import Located, objects, of_kind
from manifests.patches import Subject
from manifests.snapshot import Snapshot
from manifests.sources.field_map import FieldMap
from manifests.tree import Tree, within

NAME = "Argo CD"


@remembered
def applications(platform: Snapshot) -> tuple[Located, ...]:
    """Every Argo CD Application of the catalog; without a catalog, of the repository."""
    layout = platform.layout
    catalog = platform.files(layout.path(layout.catalog_dir))
    if not catalog:
        return tuple(of_kind(platform, "Application"))
    return tuple(located for path in catalog for kind, located in objects(platform, path) if kind == "Application")


def group_of(layout: Layout, path: str) -> str:
    """The group of an Application's file: its directory directly below the catalog, or ""."""
    catalog = f"{layout.path(layout.catalog_dir)}/"
    inside = path.removeprefix(catalog).split("/")
    return inside[0] if path.startswith(catalog) and len(inside) > 1 else ""


def source_paths(application: Located) -> tuple[str, ...]:
    """The directories that an Application deploys, from one or several sources."""
    sources = [find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources"))]
    paths = (value(source, "path").strip("/") for source in sources)
    return tuple(path.removeprefix("./") for path in paths if path)


def application(platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Located | None:
    """The Application with both this name and this path, otherwise the one with this name, otherwise one with this path.

    Last, one whose directory leads to this path through a kustomization, and one that deploys all of a directory above.
    """
    layout = platform.layout
    found = applications(platform)
    if fields is not None:
        return next((app for app in found if value(app.node, "metadata", "name") == fields.application), None)
    has_catalog = bool(platform.files(layout.path(layout.catalog_dir)))

    def score(app: Located) -> int:
        named = value(app.node, "metadata", "name") == name
        return 2 * named * has_catalog + (home in source_paths(app)) + (named and home in source_paths(app))

    best = max(found, key=score, default=None)
    if best is not None and score(best):
        return best
    folder = posixpath.dirname(home) if platform.read(home) is not None else home
    leading = next((app for app in found if any(leads_to(platform, path, folder) for path in source_paths(app))), None)
    above = [app for app in found if any(path != home and within(home, path) for path in source_paths(app))]
    return leading or max(above, key=lambda app: max(map(len, source_paths(app))), default=None)


def described(found: Located) -> Deployment:
    """An Application as an endpoint's deployer object."""
    own, space = value(found.node, "metadata", "name"), value(found.node, "spec", "destination", "namespace")
    return Deployment(NAME, own, found, source_paths(found), space)


class ArgoCD:
    """Applications, in the catalog or anywhere."""

    name = NAME

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        found = application(platform, name, home, fields)
        return described(found) if found is not None else None

    def patches(self, tree: Tree, deployment: Deployment, subject: Subject) -> tuple[Opaque, ...]:
        return ()


DEPLOYER = ArgoCD()
