#!/bin/sh
# core.sleep: waits for `seconds`, then prints `message`.
set -eu
. "${0%/*}/../lib/dotenv.sh"

seconds=1 message=
parameter() {
    case $1 in
    seconds) seconds=$2 ;;
    message) message=$2 ;;
    esac
}
read_parameters parameter

case $seconds in
'' | . | *[!0-9.]* | *.*.*)
    echo "seconds must be a number from 0 on, not '$seconds'" >&2
    exit 64
    ;;
esac
sleep "$seconds"
if [ -n "$message" ]; then
    printf '%s\n' "$message"
fi
