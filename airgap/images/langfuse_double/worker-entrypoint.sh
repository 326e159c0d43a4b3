#!/bin/sh
# As Langfuse's: runs the command.
set -eu
exec "$@"
