"""The stack: settings -> site -> MLflow and Langfuse -> MLflow's team -> outputs."""

from __future__ import annotations

import sys

import pulumi
from pulumi.runtime.config import _SECRET_KEYS, CONFIG

from components import preflight
from components.langfuse import LangfuseArgs, LangfuseStack
from components.mlflow import MlflowArgs, MlflowStack
from components.mlflow_auth.registration import begin_before_waiting
from components.outputs import outputs
from components.problems import ProblemsError
from components.settings import PROJECT, advice, load
from components.site import Site
from components.team import MlflowTeam, MlflowTeamArgs

try:
    settings = load(CONFIG.get(), _SECRET_KEYS.get())
    volumes = preflight.check(settings, f"{PROJECT}/{pulumi.get_stack()}")
except ProblemsError as error:
    # As an error of the deployment and without a traceback: it is the person's to read.
    pulumi.log.error(str(error))
    sys.exit(1)

for text in advice(settings):
    pulumi.log.warn(text)

site = Site("site", settings, volumes)
mlflow, langfuse = settings.mlflow, settings.langfuse
# What is kept is declared also where its product is switched off.
mlflow_stack = (
    MlflowStack("mlflow", site, MlflowArgs(settings=mlflow)) if mlflow.enabled or site.keep_data else None
)
langfuse_stack = (
    LangfuseStack("langfuse", site, LangfuseArgs(settings=langfuse))
    if langfuse.enabled or site.keep_data
    else None
)
team = (
    MlflowTeam("mlflow-team", MlflowTeamArgs(mlflow=mlflow_stack))
    if mlflow_stack and mlflow.enabled
    else None
)

for name, value in outputs(site, mlflow_stack, team, langfuse_stack).items():
    pulumi.export(name, value)

begin_before_waiting()
