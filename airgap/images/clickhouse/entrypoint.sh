#!/bin/bash
# Starts ClickHouse as the official image does. CLICKHOUSE_USER and CLICKHOUSE_PASSWORD (or their _FILE variants) make
# a user; without them `default` is closed to the network, unless a file in users.d governs it.
set -eo pipefail

config=${CLICKHOUSE_CONFIG:-/etc/clickhouse-server/config.xml}
users_d=/etc/clickhouse-server/users.d

fail() {
    echo "entrypoint: $1" >&2
    exit 1
}

setting() {
    local name=$1 file_name=$1_FILE
    local value=${!name} file=${!file_name}
    [[ -z $value || -z $file ]] || fail "$name and $file_name are both set: set one of them"
    if [[ -n $file ]]; then
        [[ -r $file ]] || fail "$file_name names a file that cannot be read: $file"
        value=$(<"$file")
    fi
    printf -v "$name" %s "$value"
    export -n "$name" # for this script alone: the server has no use for it
}

write_user() {
    local user=${CLICKHOUSE_USER:-default} password access=${CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT:-0}
    [[ $user =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || fail "CLICKHOUSE_USER may hold letters, digits and _ only: $user"
    password=$(printf %s "$CLICKHOUSE_PASSWORD" | sha256sum | cut -d ' ' -f 1)
    {
        echo '<clickhouse><users>'
        [[ $user == default ]] || echo '<default remove="remove"/>'
        echo "<$user>"
        if [[ $user == default ]]; then
            echo '<password remove="remove"/>'
        else
            echo '<profile>default</profile><quota>default</quota><networks><ip>::/0</ip></networks>'
        fi
        echo "<password_sha256_hex>$password</password_sha256_hex>"
        echo "<access_management>$access</access_management></$user>"
        echo '</users></clickhouse>'
    } >"$users_d/default-user.xml"
}

close_default_user() {
    echo 'entrypoint: neither CLICKHOUSE_USER nor CLICKHOUSE_PASSWORD is set: user default is for this container only' >&2
    echo '<clickhouse><users><default><networks><ip>::1</ip><ip>127.0.0.1</ip></networks></default></users></clickhouse>' \
        >"$users_d/default-user.xml"
}

if [[ $# -gt 0 && $1 != --* ]]; then
    exec "$@"
fi

[[ -z $CLICKHOUSE_DB ]] || fail 'CLICKHOUSE_DB is not supported by this image: create the database with a query'
setting CLICKHOUSE_USER
setting CLICKHOUSE_PASSWORD
if [[ -n $CLICKHOUSE_USER || -n $CLICKHOUSE_PASSWORD ]]; then
    write_user
elif [[ ${CLICKHOUSE_SKIP_USER_SETUP:-0} != 1 ]] && ! grep -qs '<default[ />]' "$users_d"/*.xml; then
    close_default_user
fi

as_user=()
if [[ $(id -u) == 0 && ${CLICKHOUSE_RUN_AS_ROOT:-0} != 1 ]]; then
    find /var/lib/clickhouse /var/log/clickhouse-server ! -user clickhouse -exec chown clickhouse:clickhouse {} +
    as_user=(gosu clickhouse:clickhouse)
fi
cd /var/lib/clickhouse
exec "${as_user[@]}" clickhouse-server --config-file="$config" "$@"
