#!/bin/sh
# core.echo: prints `message`.
set -eu
. "${0%/*}/../lib/dotenv.sh"

message= uppercase=
parameter() {
    case $1 in
    message) message=$2 ;;
    uppercase) uppercase=$2 ;;
    esac
}
read_parameters parameter

if [ "$uppercase" = true ]; then
    printf '%s\n' "$message" | tr '[:lower:]' '[:upper:]'
else
    printf '%s\n' "$message"
fi
