import json
import sys

import thing

print(json.dumps({"answer": thing.ANSWER, "environment": sys.prefix}))
