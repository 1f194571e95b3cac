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
    """Every Argo CD Application in the catalog, or in the whole repository if there is no catalog."""
    layout = platform.layout
    catalog = platform.files(layout.path(layout.catalog_dir))
    if not catalog:
        return tuple(of_kind(platform, "Application"))
    return tuple(located for path in catalog for kind, located in objects(platform, path) if kind == "Application")


def group_of(layout: Layout, path: str) -> str:
    """The group of an Application's file: its directory directly below the catalog, or ""."""
    catalog = f"{layout.path(layout.catalog_dir)}/"
    parts = path.removeprefix(catalog).split("/")
    return parts[0] if path.startswith(catalog) and len(parts) > 1 else ""


def source_paths(application: Located) -> tuple[str, ...]:
    """The directories that an Application deploys, from one or several sources."""
    sources = [find(application.node, "spec", "source"), *items(find(application.node, "spec", "sources"))]
    paths = (value(source, "path").strip("/") for source in sources)
    return tuple(path.removeprefix("./") for path in paths if path)


def application(platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Located | None:
    """The Application of an endpoint.

    In order of precedence: the Application with this name and this path, with only this name, with only this path, with
    a directory whose kustomization refers to this path, or with a directory above this path.
    """
    layout = platform.layout
    all_applications = applications(platform)
    if fields is not None:
        return next(
            (app for app in all_applications if value(app.node, "metadata", "name") == fields.application), None
        )
    has_catalog = bool(platform.files(layout.path(layout.catalog_dir)))

    def score(app: Located) -> int:
        has_name = value(app.node, "metadata", "name") == name
        return 2 * has_name * has_catalog + (home in source_paths(app)) + (has_name and home in source_paths(app))

    best = max(all_applications, key=score, default=None)
    if best is not None and score(best):
        return best
    folder = posixpath.dirname(home) if platform.read(home) is not None else home
    referring = next(
        (app for app in all_applications if any(leads_to(platform, path, folder) for path in source_paths(app))), None
    )
    deploying_parents = [
        app for app in all_applications if any(path != home and within(home, path) for path in source_paths(app))
    ]
    return referring or max(deploying_parents, key=lambda app: max(map(len, source_paths(app))), default=None)


def deployment_of(located: Located) -> Deployment:
    """The Application as a `Deployment`."""
    name, namespace = value(located.node, "metadata", "name"), value(located.node, "spec", "destination", "namespace")
    return Deployment(NAME, name, located, source_paths(located), namespace)


class ArgoCD:
    """Finds Applications in the catalog, or anywhere in a repository without a catalog."""

    name = NAME

    def deployment(self, platform: Snapshot, name: str, home: str, fields: FieldMap | None) -> Deployment | None:
        located = application(platform, name, home, fields)
        return deployment_of(located) if located is not None else None

    def patches(self, tree: Tree, deployment: Deployment, subject: Subject) -> tuple[Opaque, ...]:
        return ()


DEPLOYER = ArgoCD()
