import signal
import sys

import thing

print(f"{thing.ANSWER} in {sys.prefix}", file=sys.stderr, flush=True)
signal.pause()
