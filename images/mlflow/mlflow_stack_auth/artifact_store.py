"""How long MLflow waits for the artifact store. boto3's own time-outs would let an S3 that hangs hold all threads for minutes."""

from __future__ import annotations

import boto3
import botocore.session
from botocore.config import Config

# botocore's defaults: 60 s to connect and 60 s for the next byte, five times each.
_WAITING = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 2})


def give_up_in_time() -> None:
    """Every S3 client that MLflow makes from now on waits no longer than that."""
    session = botocore.session.get_session()
    session.set_default_client_config(_WAITING)
    boto3.setup_default_session(botocore_session=session)
