#!/bin/sh
# Run once, by PostgreSQL's image, in a new database cluster: the gateway's own role, which is no superuser, and its
# database.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$(cat /run/secrets/gateway_database_password)" \
    --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE gateway LOGIN PASSWORD :'password';
CREATE DATABASE gateway OWNER gateway;
SQL
