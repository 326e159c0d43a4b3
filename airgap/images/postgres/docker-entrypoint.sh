#!/usr/bin/env bash
# Starts PostgreSQL as the official image does; a first start makes the cluster, user and database that the
# POSTGRES_* variables name and runs what lies in /docker-entrypoint-initdb.d.
set -Eeo pipefail

fail() {
    printf 'docker-entrypoint: %s\n' "$@" >&2
    exit 1
}

# Sets a variable from itself, the file that VARIABLE_FILE names, or a default.
setting() {
    local name=$1 file_name=$1_FILE default=${2:-}
    local value=${!name:-} file=${!file_name:-}
    [[ -z $value || -z $file ]] || fail "$name and $file_name are both set: set one of them"
    if [[ -n $file ]]; then
        [[ -r $file ]] || fail "$file_name names a file that cannot be read: $file"
        value=$(<"$file")
    fi
    export "$name=${value:-$default}"
    unset "$file_name"
}

asks_for_information() {
    local argument
    for argument; do
        case $argument in
        -'?' | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

prepare_directories() {
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA" 2>/dev/null || true # not ours to change when run as another user
    chmod 3775 /var/run/postgresql 2>/dev/null || true
    if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then
        mkdir -p "$POSTGRES_INITDB_WALDIR"
        chmod 700 "$POSTGRES_INITDB_WALDIR"
    fi
    if [[ $(id -u) == 0 ]]; then
        find "$PGDATA" ${POSTGRES_INITDB_WALDIR:+"$POSTGRES_INITDB_WALDIR"} /var/run/postgresql \
            ! -user postgres -exec chown postgres {} +
    fi
}

check_password() {
    if [[ -z $POSTGRES_PASSWORD && $POSTGRES_HOST_AUTH_METHOD != trust ]]; then
        fail "the database is not initialised and no superuser password is given" \
            "set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE to a value that is not empty," \
            "or POSTGRES_HOST_AUTH_METHOD=trust to let everyone in without one (not recommended)"
    fi
    if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
        echo "docker-entrypoint: POSTGRES_HOST_AUTH_METHOD=trust: everyone may connect without a password" >&2
    fi
}

make_cluster() {
    # initdb looks its own user up, which `docker run --user` may leave without an entry in /etc/passwd.
    if ! getent passwd "$(id -u)" >/dev/null; then
        local wrapper
        for wrapper in /usr/lib/*/libnss_wrapper.so; do
            export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP LD_PRELOAD=$wrapper
            NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=$(mktemp)
            echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >"$NSS_WRAPPER_PASSWD"
            echo "postgres:x:$(id -g):" >"$NSS_WRAPPER_GROUP"
        done
    fi
    # POSTGRES_INITDB_ARGS is a line of arguments, quoted as a shell would have them.
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD")' \
        '${POSTGRES_INITDB_WALDIR:+--waldir "$POSTGRES_INITDB_WALDIR"}' "${POSTGRES_INITDB_ARGS:-}"
    if [[ -n ${NSS_WRAPPER_PASSWD:-} ]]; then
        rm -f "$NSS_WRAPPER_PASSWD" "$NSS_WRAPPER_GROUP"
        unset LD_PRELOAD NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    fi
}

allow_hosts() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    [[ -n $method ]] || method=$(postgres -C password_encryption "${@:2}")
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

# psql on the private server, in the database asked for; init scripts may call it by this name.
docker_process_sql() {
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password \
        --username "$POSTGRES_USER" ${POSTGRES_DB:+--dbname "$POSTGRES_DB"} "$@"
}

create_database() {
    local found
    found=$(POSTGRES_DB='' docker_process_sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only \
        <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")
    if [[ -z $found ]]; then
        POSTGRES_DB='' docker_process_sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    fi
}

run_init_files() {
    local file
    for file; do
        [[ ! -e $file ]] || echo "docker-entrypoint: init file $file"
        case $file in
        *.sh) if [[ -x $file ]]; then "$file"; else source "$file"; fi ;;
        *.sql) docker_process_sql -f "$file" ;;
        *.sql.gz) gunzip -c "$file" | docker_process_sql ;;
        *.sql.xz) xzcat "$file" | docker_process_sql ;;
        *.sql.zst) zstd -dc "$file" | docker_process_sql ;;
        *) [[ ! -e $file ]] || echo 'docker-entrypoint: ignored, its name ends in none of .sh .sql .sql.gz .sql.xz .sql.zst' ;;
        esac
    done
}

# Everything of a first start, on a server that only its own socket reaches: nobody connects half-way.
initialise() {
    setting POSTGRES_PASSWORD
    setting POSTGRES_USER postgres
    setting POSTGRES_DB "$POSTGRES_USER"
    setting POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
    check_password
    ls /docker-entrypoint-initdb.d/ >/dev/null # unreadable scripts shall fail before anything is made

    make_cluster
    allow_hosts "$@"
    export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -w start \
        -o "$(printf '%q ' "${@:2}" -c listen_addresses= -p "${PGPORT:-5432}")"
    create_database
    run_init_files /docker-entrypoint-initdb.d/*
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGPASSWORD
    echo 'docker-entrypoint: PostgreSQL init process complete; ready for start up.'
}

[[ ${1:-} != -* ]] || set -- postgres "$@"
if [[ ${1:-} == postgres ]] && ! asks_for_information "$@"; then
    prepare_directories
    if [[ $(id -u) == 0 ]]; then
        exec gosu postgres "${BASH_SOURCE[0]}" "$@"
    fi
    if [[ -s $PGDATA/PG_VERSION ]]; then
        echo 'docker-entrypoint: the data directory holds a database; initialisation is skipped'
    else
        initialise "$@"
    fi
    unset POSTGRES_PASSWORD # the server has no use for it, nor has who reads its environment
fi
exec "$@"
