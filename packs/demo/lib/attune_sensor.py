"""What every sensor in Python needs: its rules, a way to emit events, and the end.

The runtime puts this folder on PYTHONPATH. Only the standard library is used.
"""

import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request

TRIES = 3


class Sensor:
    """The sensor's side of the contract with its host."""

    def __init__(self):
        self.ref = os.environ["ATTUNE_SENSOR_REF"]
        # One element for each enabled rule: {"config": <trigger_params>, "id": <rule id>, "ref": <rule ref>}.
        self.rules = json.loads(os.environ.get("ATTUNE_SENSOR_TRIGGERS") or "[]")
        self.stopped = threading.Event()
        self._events = os.environ["ATTUNE_API_URL"].rstrip("/") + "/api/v1/events"
        self._token = os.environ["ATTUNE_API_TOKEN"]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopped.set())

    def artifacts(self, path):
        """A path below the folder that sensors and actions share."""
        return os.path.join(os.environ.get("ATTUNE_ARTIFACTS_DIR", "."), path)

    def wait(self, seconds):
        """Waits. False when the sensor is to stop."""
        return not self.stopped.wait(seconds)

    def emit(self, trigger_ref, payload, rule):
        """Posts an event for one rule. False when it could not be delivered."""
        body = {"trigger_ref": trigger_ref, "payload": payload, "trigger_instance_id": f"rule_{rule['id']}"}
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._events, json.dumps(body).encode(), headers)
        for attempt in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=10):
                    return True
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    # The host starts the sensor again, with a new token.
                    sys.exit(f"{self.ref}: the token is not accepted any more")
                problem = f"{error.code} {error.read().decode('utf-8', 'replace')}"
                if error.code < 500:
                    break
            except OSError as error:
                problem = str(error)
            if attempt < TRIES and not self.wait(0.2 * attempt):
                break
        print(f"{self.ref}: event for {rule['ref']} not delivered: {problem}", file=sys.stderr)
        return False
