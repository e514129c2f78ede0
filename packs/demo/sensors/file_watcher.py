"""demo.file_watcher: emits demo.file_changed for every change in the folders that rules name.

Looks twice a second, with the standard library only. What is there at the start is not reported.
"""

import os

from attune_sensor import Sensor

TRIGGER = "demo.file_changed"
SECONDS_BETWEEN_LOOKS = 0.5


def look(folder):
    """Name of every file in the folder, with what changes when the file does."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.is_file() and not entry.name.startswith("."):
                    status = entry.stat()
                    found[entry.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
            except FileNotFoundError:
                pass  # gone between listing and looking
    return found


def changes(before, now):
    """Yields (name, change) for every difference between two looks."""
    for name in now:
        if name not in before:
            yield name, "created"
        elif now[name] != before[name]:
            yield name, "modified"
    for name in before:
        if name not in now:
            yield name, "deleted"


def main():
    sensor = Sensor()
    watched = []
    for rule in sensor.rules:
        folder = sensor.artifacts((rule["config"] or {}).get("folder") or "demo/watched")
        os.makedirs(folder, exist_ok=True)
        watched.append((rule, folder, look(folder)))
        print(f"{sensor.ref}: watching {folder} for {rule['ref']}", flush=True)
    while sensor.wait(SECONDS_BETWEEN_LOOKS):
        for index, (rule, folder, before) in enumerate(watched):
            try:
                now = look(folder)
            except FileNotFoundError:
                now = {}
            for name, change in changes(before, now):
                payload = {"path": os.path.join(folder, name), "name": name, "change": change}
                if name in now:
                    payload["size"] = now[name][1]
                sensor.emit(TRIGGER, payload, rule)
            watched[index] = (rule, folder, now)


main()
