"""What every sensor in Python needs: its rules, a way to emit events, and the end.

The runtime puts this folder on PYTHONPATH. Only the standard library is used.
"""

import json
import os
import signal
import socket
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
        # With this file the host renews the token while the sensor runs; it only has to know that somebody reads it.
        self._token_file = os.environ.get("ATTUNE_API_TOKEN_FILE")
        self.notify("READY=1\nX_ATTUNE_KEEPS=token" if self._token_file else "READY=1")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stopped.set())

    def notify(self, text):
        """Says how the sensor is: READY=1, STATUS=..., WATCHDOG=1, one on each line."""
        if address := os.environ.get("NOTIFY_SOCKET"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as host:
                host.sendto(text.encode(), address)

    def token(self):
        """The token of the moment."""
        if self._token_file:
            with open(self._token_file, encoding="ascii") as file:
                return file.read().strip()
        return os.environ["ATTUNE_API_TOKEN"]

    def artifacts(self, path):
        """A path below the folder that sensors and actions share."""
        return os.path.join(os.environ.get("ATTUNE_ARTIFACTS_DIR", "."), path)

    def wait(self, seconds):
        """Waits. False when the sensor is to stop."""
        return not self.stopped.wait(seconds)

    def emit(self, trigger_ref, payload, rule):
        """Posts an event for one rule. False when it could not be delivered."""
        body = {"trigger_ref": trigger_ref, "payload": payload, "trigger_instance_id": f"rule_{rule['id']}"}
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/json"}
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
