"""Events and media in S3 (MinIO)."""

from __future__ import annotations

import json
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .problems import store
from .settings import Bucket

_LINK_SECONDS = 3600
_ERRORS = (BotoCoreError, ClientError)


class ObjectStore:
    """One bucket under one prefix. Links are signed for the bucket's endpoint, without a call to it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._client = boto3.client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name="us-east-1" if bucket.region == "auto" else bucket.region,
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.secret_access_key,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=3,
                read_timeout=10,
                retries={"total_max_attempts": 2},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def put_json(self, key: str, value: Any) -> str:
        """Store a value below the prefix; the key it has in the bucket."""
        full = self._bucket.prefix + key
        with store("s3", *_ERRORS):
            self._client.put_object(
                Bucket=self._bucket.name,
                Key=full,
                Body=json.dumps(value).encode(),
                ContentType="application/json",
            )
        return full

    def get_json(self, key: str) -> Any:
        """The value under a full key; LookupError where the object is gone for good."""
        try:
            with store("s3", BotoCoreError):
                return json.load(self._client.get_object(Bucket=self._bucket.name, Key=key)["Body"])
        except self._client.exceptions.NoSuchKey:
            raise LookupError(f"no object {key}") from None
        except ClientError as error:
            with store("s3", ClientError):
                raise error

    def upload_link(self, key: str, content_type: str, length: int, sha256: str) -> str:
        """Where a browser or SDK may PUT exactly this content."""
        return self._link(
            "put_object", key, ContentType=content_type, ContentLength=length, ChecksumSHA256=sha256
        )

    def download_link(self, key: str) -> str:
        """Where the object may be read for the next hour."""
        return self._link("get_object", key)

    def _link(self, operation: str, key: str, **parameters: Any) -> str:
        parameters |= {"Bucket": self._bucket.name, "Key": self._bucket.prefix + key}
        return self._client.generate_presigned_url(operation, Params=parameters, ExpiresIn=_LINK_SECONDS)
