"""What a stack tells about itself: addresses, credentials, and what its clients need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulumi import Output

from components.langfuse import LangfuseStack
from components.mlflow import MlflowStack
from components.settings import TeamMember
from components.site import Site
from components.team import MlflowTeam


def outputs(
    site: Site, mlflow: MlflowStack | None, team: MlflowTeam | None, langfuse: LangfuseStack | None
) -> dict[str, Any]:
    """The stack's outputs by name. Secret ones are shown by `pulumi stack output --show-secrets` only."""
    found: dict[str, Any] = {}
    client: dict[str, Any] = {}
    if mlflow is not None and team is not None:
        found |= _mlflow(site, mlflow, team)
        client |= {
            "MLFLOW_TRACKING_URI": mlflow.url,
            "MLFLOW_TRACKING_USERNAME": mlflow.settings.admin_username,
            "MLFLOW_TRACKING_PASSWORD": mlflow.secrets.admin_password,
        }
    if langfuse is not None and langfuse.settings.enabled:
        found |= _langfuse(site, langfuse)
        client |= {
            "LANGFUSE_HOST": langfuse.url,
            "LANGFUSE_BASE_URL": langfuse.url,
            "LANGFUSE_PUBLIC_KEY": langfuse.secrets.public_key,
            "LANGFUSE_SECRET_KEY": langfuse.secrets.secret_key,
        }
    products = [product for product in (mlflow, langfuse) if product is not None]
    found["containers"] = {
        service: container.name for product in products for service, container in product.containers.items()
    }
    found["volumes"] = {
        service: volume.name for product in products for service, volume in product.volumes.items()
    }
    # After the administrator's resource: who reads this may log in.
    found["clientEnv"] = Output.secret(Output.concat(*(_line(name, value) for name, value in client.items())))
    found["identity"] = site.identity
    return found


def _line(name: str, value: Any) -> Output[str]:
    # Single quotes: dotenv files and shells both take them, and neither looks for anything inside.
    quoted = Output.from_input(value).apply(lambda text: "'" + text.replace("'", "'\\''") + "'")
    return Output.concat(name, "=", quoted, "\n")


def _mlflow(site: Site, mlflow: MlflowStack, team: MlflowTeam) -> dict[str, Any]:
    settings = mlflow.settings
    found: dict[str, Any] = {
        "mlflowUrl": mlflow.url,
        "mlflowVersion": site.images.version("mlflow"),
        "mlflowAdminUsername": team.admin.admin_username,
        "mlflowAdminPassword": mlflow.secrets.admin_password,
        "mlflowUserPasswords": team.passwords,
        "mlflowTeam": [_declared(member) for member in settings.users],
    }
    if site.publish_data_stores:
        ports = {
            "mlflow-postgres": settings.postgres_port,
            "mlflow-postgres-auth": settings.auth_postgres_port,
        }
        databases = {"mlflow-postgres": "mlflow", "mlflow-postgres-auth": "mlflow_auth"}
        found["mlflowDatabases"] = {
            name: f"postgresql://{databases[name]}@{site.host}:{ports[name]}/{databases[name]}"
            for name in ports
            if name in mlflow.containers
        }
        if "mlflow-minio" in mlflow.containers:
            found["mlflowMinioConsoleUrl"] = f"http://{site.host}:{settings.minio_console_port}"
    return found


def _declared(member: TeamMember) -> Mapping[str, Any]:
    return {
        "name": member.name,
        "admin": member.admin,
        "experiments": dict(member.experiments),
        "models": dict(member.models),
    }


def _langfuse(site: Site, langfuse: LangfuseStack) -> dict[str, Any]:
    settings = langfuse.settings
    found: dict[str, Any] = {
        "langfuseUrl": langfuse.url,
        "langfuseVersion": site.images.version("langfuse-web"),
        "langfusePublicKey": langfuse.secrets.public_key,
        "langfuseSecretKey": langfuse.secrets.secret_key,
        "langfuseUserEmail": settings.user_email,
        "langfuseUserPassword": langfuse.secrets.user_password,
    }
    if site.publish_data_stores and "langfuse-minio" in langfuse.containers:
        found["langfuseMinioConsoleUrl"] = f"http://{site.host}:{settings.minio_console_port}"
    return found
