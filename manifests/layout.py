"""The paths of a platform repository."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from manifests.sources.field_map import FieldMap


class Layout(BaseModel, frozen=True, defer_build=True, extra="forbid"):
    """The paths of a platform repository. Every path can be changed in the settings."""

    environment: str = Field(default="ai-dev", description="Name that replaces `{environment}` in the paths below.")
    branch: str = Field(default="main", description="Branch that the deployer follows.")
    namespace: str = Field(default="serving", description="Namespace of the models.")
    namespaces: tuple[str, ...] = Field(default=(), description="Other namespaces with models.")
    gpu_resources: tuple[str, ...] = Field(default=(), description="Other resource names that count as a GPU.")
    group: str = Field(default="coding-assistant", description="Catalog group of new endpoints.")
    template: str = Field(default="coder-chat", description="Endpoint that `/model add` copies by default.")
    serving_dir: str = Field(default="serving", description="Directory with one directory per endpoint.")
    litellm_values: str = Field(default="platform/litellm/values.yaml", description="File with LiteLLM's `model_list`.")
    catalog_dir: str = Field(
        default="clusters/{environment}/catalog", description="Directory of the Applications, one directory per group."
    )
    model_catalog: str = Field(
        default="docs/public/reference/model-catalog.md", description="Page with a table of the models, for tenants."
    )
    wait_script: str = Field(
        default="scripts/wait-profile.sh",
        description="Script with the list `manual_apps` of Applications synced by hand.",
    )
    bring_up_guide: str = Field(
        default="docs/public/guides/staged-bring-up.md",
        description="Page with a table of the Applications synced by hand.",
    )
    key_portal: str = Field(
        default="platform/key-portal/values.yaml", description="File with the aliases that the key portal offers."
    )
    config: str = Field(
        default="environments/{environment}/config.yaml", description="File with the flags of the groups."
    )
    groups_file: str = Field(
        default="clusters/{environment}/groups.generated.yaml", description="Generated list of the groups."
    )
    benchmarks_dir: str = Field(default="benchmarks", description="Directory of benchmark reports.")
    endpoints: Mapping[str, FieldMap] = Field(
        default_factory=dict,
        description="Field map: the places of an endpoint's values ([contract](contract.md#the-field-map)).",
    )

    def path(self, template: str) -> str:
        """A path with the environment filled in."""
        return template.replace("{environment}", self.environment)

    def home(self, name: str) -> str:
        """The directory of an endpoint's manifests."""
        return f"{self.serving_dir}/{name}"

    def measurements(self, name: str) -> str:
        """The directory of an endpoint's benchmark reports."""
        return f"{self.benchmarks_dir}/{name}"
