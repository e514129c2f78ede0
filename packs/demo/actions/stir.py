"""demo.stir: writes the note into the watched folder and posts it to the webhook receiver."""

import json
import os
import sys
import urllib.request


def artifacts(path):
    """A path below the folder that sensors and actions share."""
    return os.path.join(os.environ.get("ATTUNE_ARTIFACTS_DIR", "."), path)


def write(folder, note):
    """Writes the note; renamed into its place, so that a watcher never sees half of it."""
    os.makedirs(folder, exist_ok=True)
    file = os.path.join(folder, "note.txt")
    draft = os.path.join(folder, f".note.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as out:
        out.write(note + "\n")
    os.replace(draft, file)
    return file


def post(note):
    """Posts the note to where the receiver says it listens."""
    try:
        with open(artifacts("demo/webhook.url"), encoding="utf-8") as announced:
            url = announced.read().strip()
    except FileNotFoundError:
        return "not asked: the receiver is not running yet"
    body = json.dumps({"source": "demo.stir", "note": note, "words": note.split()}).encode()
    request = urllib.request.Request(url + "/", body, {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=10) as answer:
            return f"{answer.status} {answer.read().decode().strip()}"
    except OSError as error:
        return f"not reached: {error}"


def main():
    parameters = json.load(sys.stdin)
    note = parameters["note"]
    file = write(artifacts(parameters["folder"]), note)
    print(json.dumps({"file": file, "webhook": post(note)}))


main()
