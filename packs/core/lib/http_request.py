"""core.http_request without an agent: one JSON object from standard input, one to standard output."""

import base64
import json
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection to the caller."""

    def redirect_request(self, *_):
        return None


def build(parameters):
    """The request that the parameters describe."""
    url = parameters["url"]
    query = {name: value for name, value in (parameters.get("query_params") or {}).items() if value is not None}
    if query:
        url += ("&" if urllib.parse.urlsplit(url).query else "?") + urllib.parse.urlencode(query, doseq=True)
    headers = {name: str(value) for name, value in (parameters.get("headers") or {}).items()}
    auth = parameters.get("auth") or {}
    if "token" in auth:
        headers["Authorization"] = "Bearer " + auth["token"]
    elif "username" in auth:
        pair = f"{auth['username']}:{auth.get('password') or ''}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    body = parameters.get("body")
    if parameters.get("json") is not None or not isinstance(body, (str, type(None))):
        body = json.dumps(parameters["json"] if parameters.get("json") is not None else body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    data = None if body is None else body.encode()
    return urllib.request.Request(url, data=data, headers=headers, method=parameters.get("method") or "GET")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most so many redirections."""

    def __init__(self, limit):
        self.max_redirections = limit


def opener(parameters):
    """A client with the wanted care about certificates and redirections."""
    context = ssl.create_default_context()
    if parameters.get("verify_ssl") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    handlers = [urllib.request.HTTPSHandler(context=context)]
    if parameters.get("follow_redirects") is False:
        handlers.append(NoRedirect())
    elif parameters.get("max_redirects") is not None:
        handlers.append(Redirects(parameters["max_redirects"]))
    return urllib.request.build_opener(*handlers)


def main():
    parameters = json.load(sys.stdin)
    if not parameters.get("url"):
        sys.exit("http_request: url is missing")
    began = time.monotonic()
    try:
        answer = opener(parameters).open(build(parameters), timeout=parameters.get("timeout_seconds") or 30)
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, ValueError) as error:
        sys.exit(f"http_request: {parameters['url']}: {getattr(error, 'reason', error)}")
    if parameters.get("fail_on_error") and answer.status >= 400:
        sys.exit(f"http_request: {answer.url} answered with status {answer.status}")
    with answer:
        body = answer.read().decode("utf-8", "replace")
    result = {
        "status_code": answer.status,
        "success": 200 <= answer.status < 300,
        "headers": {name.lower(): value for name, value in answer.headers.items()},
        "body": body,
        "url": answer.url,
        "elapsed_ms": round((time.monotonic() - began) * 1000),
    }
    try:
        result["json"] = json.loads(body)
    except ValueError:
        pass
    print(json.dumps(result))


main()
