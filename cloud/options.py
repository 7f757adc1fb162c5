"""The options that the programs of this package share: recipe, project, region, and a run that sends nothing."""

from __future__ import annotations

import dataclasses

from cloud.gcloud import Gcloud, Runner
from configs.cloud import CloudOptions
from configs.gcp_project import find_project
from configs.option import option
from configs.recipe import Recipe, RecipeChoice
from configs.rules import Switch, Text


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudPlaceOptions(RecipeChoice):
    """The options of a program that asks Google Cloud."""

    # `CloudOptions` has the rules for projects and regions.
    project: str | None = option(
        None,
        Text(anything=True),
        help="project that pays",
        decides="neither",
        default_words="the recipe's, GOOGLE_CLOUD_PROJECT, or gcloud's",
    )
    region: str | None = option(
        None,
        Text(anything=True),
        help="region to work in",
        decides="neither",
        default_words="the recipe's",
    )

    def gcloud(self, recipe: Recipe, run: Runner) -> Gcloud:
        """Gcloud for the project and the region of this run.

        Args:
          recipe: has the project and the region that the command line does not give.
          run: runs a command.

        Raises:
          InputError: the project or the region is wrong, or nothing names a project.
        """
        region = recipe.cloud.region if self.region is None else CloudOptions(region=self.region).region
        return Gcloud(find_project(recipe.cloud, self.project), region, run)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloudRunOptions(CloudPlaceOptions):
    """The options of a program that sends something to Google Cloud."""

    dry_run: bool = option(
        False,
        Switch(can_be_unset=False),
        help="check everything, print what would be sent, send nothing",
        decides="neither",
    )
