"""What belongs to the machine and to all experiments: the keys of config/config.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from creditflow.core.settings import Many, SettingsModel
from creditflow.workflow.key_types import Name


class Container(SettingsModel):
    """The image of `--use-apptainer`."""

    flavour: Literal["cuda", "cpu"]
    """Build of torch in the image; `cuda` runs without a GPU, too."""


class Data(SettingsModel):
    """Where data comes from."""

    search_paths: Many[Annotated[str, Field(min_length=1)]]
    """Folders that are looked through before anything is downloaded: for raw files of datasets (plain or .gz),
    archives, folders of images (docs/datasets.md), and published weights (.pth, under torchvision's file name). `~` and
    `$VAR` mean what they mean in a shell."""
    max_unreadable: float = Field(ge=0, le=1)
    """Share of a split's image files that may be unreadable. They are left out, and named in the log."""


class WorkflowKeys(SettingsModel):
    """What belongs to the machine and to all experiments."""

    default_experiment: Name
    """The experiment that `snakemake` makes when no target is named."""
    device: str = Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    """Where stages compute: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`."""
    container: Container
    """The image of `--use-apptainer`."""
    data: Data
    """Where data comes from."""
