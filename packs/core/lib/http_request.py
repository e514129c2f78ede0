"""core.http_request without an agent: one JSON object from standard input, one to standard output."""

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
    query = parameters.get("query_params") or {}
    if query:
        url += ("&" if urllib.parse.urlsplit(url).query else "?") + urllib.parse.urlencode(query, doseq=True)
    headers = {name: str(value) for name, value in (parameters.get("headers") or {}).items()}
    body = parameters.get("body")
    if body is not None and not isinstance(body, str):
        body = json.dumps(body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    data = None if body is None else body.encode()
    return urllib.request.Request(url, data=data, headers=headers, method=parameters.get("method") or "GET")


def opener(parameters):
    """A client with the wanted care about certificates and redirections."""
    context = ssl.create_default_context()
    if parameters.get("verify_ssl") is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    handlers = [urllib.request.HTTPSHandler(context=context)]
    if parameters.get("follow_redirects") is False:
        handlers.append(NoRedirect())
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
    with answer:
        body = answer.read().decode("utf-8", "replace")
    result = {
        "status_code": answer.status,
        "success": 200 <= answer.status < 300,
        "headers": {name.lower(): value for name, value in answer.headers.items()},
        "body": body,
        "elapsed_ms": round((time.monotonic() - began) * 1000),
    }
    try:
        result["json"] = json.loads(body)
    except ValueError:
        pass
    print(json.dumps(result))


main()
