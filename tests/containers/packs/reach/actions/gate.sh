#!/bin/sh
# Says that it has begun, and waits until somebody opens.
begun=$ATTUNE_ARTIFACTS_DIR/begun-$ATTUNE_EXEC_ID
: >"$begun"
while [ ! -e "$ATTUNE_ARTIFACTS_DIR/open" ]; do sleep 0.05; done
echo done
