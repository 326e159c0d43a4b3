#!/bin/sh
# Starts Redis as the official image does: options and *.conf files go to redis-server, root becomes redis.
set -eu

case ${1:-} in
-* | *.conf) set -- redis-server "$@" ;;
esac

if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
    find . \! -user redis -exec chown redis '{}' +
    exec gosu redis "$0" "$@"
fi

# Data is for Redis alone, unless somebody chose otherwise.
if [ "$(umask)" = 0022 ]; then
    umask 0077
fi

# Containers have a network of their own, so Redis is open to it as the official build is, unless the options or the
# configuration file say something of protected mode.
if [ "${1:-}" = redis-server ]; then
    shift
    case ${1:-} in
    '' | -*) set -- redis-server --protected-mode no "$@" ;;
    *)
        file=$1
        shift
        if grep -qis '^ *protected-mode' "$file"; then
            set -- redis-server "$file" "$@"
        else
            set -- redis-server "$file" --protected-mode no "$@"
        fi
        ;;
    esac
fi
exec "$@"
