"""The paths of a platform repository."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from manifests.sources.field_map import FieldMap


class Layout(BaseModel, frozen=True, extra="forbid"):
    """The paths of a platform repository. Each platform can change them; these are the defaults."""

    environment: str = "ai-dev"
    branch: str = "main"
    namespace: str = "serving"
    namespaces: tuple[str, ...] = ()
    gpu_resources: tuple[str, ...] = ()
    group: str = "coding-assistant"
    template: str = "coder-chat"
    serving_dir: str = "serving"
    litellm_values: str = "platform/litellm/values.yaml"
    catalog_dir: str = "clusters/{environment}/catalog"
    model_catalog: str = "docs/public/reference/model-catalog.md"
    wait_script: str = "scripts/wait-profile.sh"
    bring_up_guide: str = "docs/public/guides/staged-bring-up.md"
    key_portal: str = "platform/key-portal/values.yaml"
    config: str = "environments/{environment}/config.yaml"
    groups_file: str = "clusters/{environment}/groups.generated.yaml"
    benchmarks_dir: str = "benchmarks"
    endpoints: Mapping[str, FieldMap] = Field(default_factory=dict)

    def path(self, template: str) -> str:
        """A path with the environment filled in."""
        return template.replace("{environment}", self.environment)

    def home(self, name: str) -> str:
        """The directory of an endpoint's manifests."""
        return f"{self.serving_dir}/{name}"

    def measurements(self, name: str) -> str:
        """The directory of an endpoint's benchmark reports."""
        return f"{self.benchmarks_dir}/{name}"
