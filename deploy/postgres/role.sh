#!/bin/sh
# Runs once, when the data volume is empty: the roles and the database of the engine.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --set "password=$DATABASE_PASSWORD" <<'SQL'
CREATE ROLE orchestrator LOGIN NOSUPERUSER NOCREATEROLE PASSWORD :'password';
CREATE ROLE orchestrator_tenant NOLOGIN;
GRANT orchestrator_tenant TO orchestrator WITH INHERIT FALSE, SET TRUE;
CREATE DATABASE orchestrator OWNER orchestrator;
ALTER ROLE orchestrator SET statement_timeout = '15s';
ALTER ROLE orchestrator SET lock_timeout = '3s';
ALTER ROLE orchestrator SET idle_in_transaction_session_timeout = '15s';
ALTER ROLE orchestrator SET transaction_timeout = '30s';
SQL
