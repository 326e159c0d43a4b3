#!/bin/sh
# Starts MinIO as the official image does: a command that is not `minio` is one of MinIO's own.
set -eu

[ "${1:-minio}" = minio ] || set -- minio "$@"
exec "$@"
