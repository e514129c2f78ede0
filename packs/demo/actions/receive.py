"""demo.receive: sums up what was posted. YAML is a superset of JSON texts, so json.dumps quotes for it."""

import json
import sys

parameters = json.load(sys.stdin)
body = parameters["body"]
print("note:", json.dumps(body.get("note", "")))
print("words:", len(body.get("words", [])))
print("with_token:", json.dumps("token" in parameters))
