#!/bin/sh
# demo.greet: one line of key='value' for each parameter; enough for values without quotes and line breaks.
# core/lib/dotenv.sh shows how to read every value.
set -eu

message= count=0
while IFS= read -r line; do
    value=${line#*=\'}
    value=${value%\'}
    case $line in
    message=*) message=$value ;;
    count=*) count=$value ;;
    esac
done

echo "$message, number $count, from execution ${ATTUNE_EXEC_ID:-0}"
