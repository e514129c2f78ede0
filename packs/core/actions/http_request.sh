#!/bin/sh
# core.http_request: hands the parameters, one JSON object on standard input, to the agent's own client; without an
# agent (the script run by hand) to Python.
if [ -n "${ATTUNE_AGENT_BIN:-}" ] && [ -x "$ATTUNE_AGENT_BIN" ]; then
    exec "$ATTUNE_AGENT_BIN" http-request
fi
if command -v python3 >/dev/null 2>&1; then
    exec python3 "${0%/*}/../lib/http_request.py"
fi
echo "http_request: needs the agent binary in ATTUNE_AGENT_BIN (it is '${ATTUNE_AGENT_BIN:-}') or python3" >&2
exit 69
