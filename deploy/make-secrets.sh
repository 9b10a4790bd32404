#!/bin/sh
# Makes the secrets of docker-compose.yml in deploy/secrets, once: what is there stays. Nobody but you can enter the
# folder; the files in it are readable, since in a container each is read by the user who needs it.
set -eu
folder="$(dirname "$0")/secrets"
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

secret() { # a new secret of 256 bits
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

put() { # put FILE TEXT: write it, if it is not there
    [ -e "$folder/$1" ] && return
    printf '%s' "$2" > "$folder/$1.new"
    chmod 444 "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

put postgres_password "$(secret)"
put gateway_database_password "$(secret)"
put redis_auth "requirepass $(secret)"
put opa_bundle_token "$(secret)"
put grafana_password "$(secret)"
# The gateway's addresses of PostgreSQL and Redis, with what it needs to know to be let in.
put database_url "postgresql://gateway:$(cat "$folder/gateway_database_password")@postgres:5432/gateway"
put redis_url "redis://:$(cut -d' ' -f2 "$folder/redis_auth")@redis:6379/0"
echo "The secrets are in $folder."
