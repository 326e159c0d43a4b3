#!/bin/sh
# As Langfuse's: migrates both databases, then runs the command.
set -eu
python3 -m double migrate web
exec "$@"
