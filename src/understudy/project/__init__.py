"""Photo -> latent of a generator: the verb is in `project.py`, one method in each other file."""

from understudy.project.latent import Latent
from understudy.project.project import ProjectProgress, ProjectStep, project, project_steps

__all__ = ["Latent", "ProjectProgress", "ProjectStep", "project", "project_steps"]
