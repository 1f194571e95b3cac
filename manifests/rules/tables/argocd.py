"""The rules of Argo CD. They do not apply to an endpoint that Flux deploys."""

from manifests.rules.rule import Rule

RULES = {
    "deployment-name": Rule(
        "the Deployment has the name of its directory and its Application",
        "scaling does not find it",
        "give it the endpoint's name",
    ),
    "application-missing": Rule(
        "an Argo CD Application deploys each endpoint",
        "nothing applies the manifests",
        "add one to the catalog",
    ),
    "application-name": Rule(
        "the Application is named like the endpoint",
        "scripts and people who sync by name do not find it",
        "give it the endpoint's name",
    ),
    "application-path": Rule(
        "the Application's path is the endpoint's directory",
        "it deploys another model",
        "write the directory",
    ),
    "application-revision": Rule(
        "an endpoint's Application follows the branch that changes are merged to",
        "a merge changes nothing in the cluster",
        "write the branch as `targetRevision`",
    ),
    "application-repository": Rule(
        "an endpoint's Application reads the repository that the others read",
        "it deploys another repository",
        "write the same `repoURL`",
    ),
    "application-path-shared": Rule(
        "each directory is deployed by one Application",
        "two Applications undo each other's changes",
        "delete one of them",
    ),
    "application-destination": Rule(
        "an Application deploys to the namespace of its objects",
        "objects without a namespace are created in another namespace",
        "write the same namespace",
    ),
    "application-project": Rule(
        "an Application names an AppProject that exists",
        "Argo CD refuses it",
        "name a project of the repository",
    ),
    "application-namespace": Rule(
        "an Application is in the same namespace as all others",
        "Argo CD does not see it",
        "write that namespace",
    ),
    "sync-option": Rule(
        "`syncOptions` of an Application are spelled as in Argo CD's documentation",
        "the option has no effect",
        "correct the spelling",
    ),
    "application-finalizer": Rule(
        "an Application has a finalizer if all others have one",
        "its objects remain after it is deleted",
        "add the finalizer",
    ),
    "ignore-differences": Rule(
        "a GPU Application ignores differences in `/spec/replicas` of its own Deployment",
        "a model that is up is shown as drift",
        "name this Deployment under `ignoreDifferences`",
    ),
    "respect-ignore-differences": Rule(
        "a GPU Application has the sync option `RespectIgnoreDifferences=true`",
        "a sync scales a running model to zero",
        "add it to `syncOptions`",
    ),
    "automated-gpu": Rule(
        "a GPU Application is synced by hand (no `syncPolicy.automated`)",
        "a merge starts the GPU without an approval",
        "remove `automated`",
    ),
    "group-disabled": Rule(
        "the group of an endpoint that tenants can call is enabled",
        "its Application does not exist, and calls to the alias fail",
        "set the group's flag in the environment's config.yaml and run the generator",
    ),
    "group-stale": Rule(
        "the generated list of groups matches config.yaml",
        "the ApplicationSet uses the old list",
        "run the generator that writes the list",
    ),
    "group-path": Rule(
        "the generated list reads a group from the directory that contains its Applications",
        "Argo CD creates none of them",
        "write the directory",
    ),
    "group-unknown": Rule(
        "the generated list has the group of each endpoint's Application",
        "nothing applies the Application",
        "move the file to a group that exists",
    ),
}
