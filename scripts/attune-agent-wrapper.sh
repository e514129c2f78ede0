#!/bin/sh
# Runs an agent in an image that has no volume with it: downloads it once, verifies it, becomes it.
#
#   attune-agent-wrapper.sh [ARGUMENT...]            the worker
#   attune-sensor-agent-wrapper.sh [ARGUMENT...]     the same file by this name (a link or a copy): the sensor host
#
# Needs a POSIX shell and one of curl, wget (GNU or busybox), python3, node. Settings:
#
#   ATTUNE_AGENT_DIR         where the agent is or will be (default: /opt/attune/agent)
#   ATTUNE_AGENT_URL         where it comes from (default: http://attune-api:8080/api/v1/agent/binary)
#   ATTUNE_AGENT_TOKEN       the server's bootstrap token; or ATTUNE_AGENT_TOKEN_FILE, a file with it
#   ATTUNE_AGENT_ARCH        x86_64 or aarch64 (default: from uname -m)
#   ATTUNE_AGENT_ATTEMPTS    how often it is tried (default: 10), with pauses of 1, 2, 4 ... 30 s
#   ATTUNE_AGENT_DOWNLOADER  one of curl, wget, busybox, python3, node (default: the first that is there)
#
# The token never is an argument of any program, where others on the machine could read it. Nothing is run before its size and
# its SHA-256 (where the server tells them) and its ELF header are right, and the final name is only ever a whole file.
#
# Ends with 64 (settings), 65 (what came is not the agent), 69 (not available), 73 (the folder does not take it), 78 (the
# server refuses), or becomes the agent.
set -eu
own_locale=${LC_ALL:-} own_mask=$(umask)
LC_ALL=C
export LC_ALL
umask 022
cr=$(printf '\r')

say() { printf 'attune-agent-wrapper: %s\n' "$*" >&2; }
die() { code=$1; shift; say "$@"; exit "$code"; }
has() { command -v "$1" >/dev/null 2>&1; }

# The agent and all that it runs get the locale and the mask that the container has: those above are for this script.
become() {
    if [ -n "$own_locale" ]; then LC_ALL=$own_locale; else unset LC_ALL; fi
    umask "$own_mask"
    exec "$folder/$applet" "$@"
}

case "${0##*/}" in
attune-sensor-agent*) applet=attune-sensor-agent ;;
*) applet=attune-agent ;;
esac
folder=${ATTUNE_AGENT_DIR:-/opt/attune/agent}
url=${ATTUNE_AGENT_URL:-http://attune-api:8080/api/v1/agent/binary}
attempts=${ATTUNE_AGENT_ATTEMPTS:-10}

# What downloads left that were killed. The folder may belong to several containers, where a process id tells nothing: a download
# that runs touches a file of its own at least once in a quarter of an hour.
for left in "$folder"/.attune-fetch.*; do
    # Without a find that knows -mmin it stays.
    [ ! -d "$left" ] || ! fresh=$(find "$left" -mmin -30 2>/dev/null) || [ -n "$fresh" ] || rm -rf "$left" 2>/dev/null || true
done
[ ! -x "$folder/$applet" ] || become "$@"

case "$attempts" in '' | *[!0-9]* | 0) die 64 "ATTUNE_AGENT_ATTEMPTS must be a number from 1 on, not $attempts" ;; esac
case "$url" in http://?* | https://?*) ;; *) die 64 "ATTUNE_AGENT_URL must begin with http:// or https://" ;; esac
arch=${ATTUNE_AGENT_ARCH:-$(uname -m)}
case "$arch" in
x86_64 | amd64) arch=x86_64 ;;
aarch64 | arm64) arch=aarch64 ;;
*)
    say "no agent is known for $arch: trying the one for x86_64"
    arch=x86_64
    ;;
esac
token=${ATTUNE_AGENT_TOKEN:-}
if [ -z "$token" ] && [ -n "${ATTUNE_AGENT_TOKEN_FILE:-}" ]; then
    IFS= read -r token <"$ATTUNE_AGENT_TOKEN_FILE" || [ -n "$token" ] ||
        die 64 "ATTUNE_AGENT_TOKEN_FILE: $ATTUNE_AGENT_TOKEN_FILE cannot be read"
    token=${token%"$cr"}
fi
case "$token" in *[!\ -~]* | *\"* | *\\*) die 64 'the token holds characters that no header can carry' ;; esac

# Some builds of busybox run their own wget by this name, whatever else is installed.
gnu_wget() { has wget && wget --version 2>/dev/null | grep -q 'GNU Wget'; }
downloader=${ATTUNE_AGENT_DOWNLOADER:-}
if [ -z "$downloader" ]; then
    if has curl; then downloader=curl
    elif gnu_wget; then downloader=wget
    elif has python3; then downloader=python3
    elif has node; then downloader=node
    elif has wget || has busybox; then downloader=busybox
    else die 69 'there is no curl, wget, python3 or node here: mount the volume with the agents instead'
    fi
fi

[ "$downloader" != wget ] || gnu_wget || downloader=busybox
case "$downloader" in
curl | wget | python3 | node) ;;
busybox)
    case "$token/$url" in
    /* | */http://*) ;;
    *) die 69 'busybox cannot send a token over https without showing it to others: install curl' ;;
    esac
    ;;
*) die 64 "ATTUNE_AGENT_DOWNLOADER: $downloader is none of curl, wget, busybox, python3, node" ;;
esac

mkdir -p "$folder" 2>/dev/null || die 73 "$folder cannot be made"
work=$(mktemp -d "$folder/.attune-fetch.XXXXXX" 2>/dev/null) || die 73 "$folder cannot be written: mount it writable"
# A shell acts on a signal when what it waits for has ended, unless that is in the background and it calls wait. As process 1 it
# would be killed before a download ends.
child=
in_reach() {
    "$@" &
    child=$!
    ended=0
    wait "$child" || ended=$?
    child=
    return "$ended"
}
leave() {
    # Gone before its folder is.
    [ -z "$child" ] || { kill "$child" 2>/dev/null && wait "$child"; } || true
    rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The part of the code that python3 and node have in common: URL, target and token from the environment, the status on
# standard output, and a failure where not all of the answer came.
python_code='
import os, sys, urllib.error, urllib.request
class Same(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments): return None
headers = {"X-Agent-Token": os.environ["FETCH_TOKEN"]} if os.environ["FETCH_TOKEN"] else {}
request = urllib.request.Request(os.environ["FETCH_URL"], headers=headers)
try:
    with urllib.request.build_opener(Same).open(request, timeout=60) as answer, open(os.environ["FETCH_TO"], "wb") as file:
        count, length = 0, answer.headers["Content-Length"]
        while True:
            piece = answer.read(65536)
            if not piece: break
            count += len(piece)
            file.write(piece)
        if length not in (None, str(count)): raise EOFError("the answer was cut off: %d of %s bytes came" % (count, length))
        print(answer.status)
except urllib.error.HTTPError as error:
    print(error.code)
    with open(os.environ["FETCH_TO"], "wb") as file: file.write(error.read(65536))
except Exception as error:
    sys.exit(str(error))
'
node_code='
const {FETCH_URL: url, FETCH_TOKEN: token, FETCH_TO: to} = process.env;
const http = require(url.startsWith("https:") ? "https" : "http");
const failed = (error) => process.stderr.write(error.message + "\n", () => process.exit(1));
const request = http.get(url, {headers: token ? {"X-Agent-Token": token} : {}}, (answer) => {
  process.stdout.write(answer.statusCode + "\n");
  answer.on("aborted", () => failed(new Error("the answer was cut off")));
  answer.pipe(require("fs").createWriteStream(to)).on("error", failed);
});
request.on("error", failed);
request.setTimeout(60000, () => request.destroy(new Error("no answer within 60 s")));
'

# asked_for URL FILE PROGRAM...: becomes PROGRAM, which reads from the environment what it is to do
asked_for() {
    FETCH_URL=$1 FETCH_TO=$2 FETCH_TOKEN=$token
    export FETCH_URL FETCH_TO FETCH_TOKEN
    shift 2
    exec "$@"
}

# The last status in what wget says; GNU and busybox alike.
status_in() { sed -n 's/.*HTTP\/[0-9.]* \([0-9][0-9][0-9]\).*/\1/p' "$1" | tail -n 1; }

# The standard input of what is in the background is empty.
from_9() { exec "$@" <&9; }

# Busybox: its wget takes headers as arguments only, where everybody can read them, so that with a token its nc is used.
by_busybox() {
    box=
    has busybox && box=busybox
    if [ -z "$token" ]; then
        # Without -T, which lets the wget of Debian 12 crash: its own limit is a quarter of an hour.
        # shellcheck disable=SC2086 # empty, or one word
        if in_reach $box wget -O "$2" "$1" >/dev/null 2>"$work/log"; then echo 200; else
            status_in "$work/log" | grep . || cat "$work/log" >&2
        fi
        return "$ended"
    fi
    rest=${1#http://}
    authority=${rest%%/*}
    case "$authority" in
    *\]) host=$authority port=80 ;;
    *:*) host=${authority%:*} port=${authority##*:} ;;
    *) host=$authority port=80 ;;
    esac
    bare=${host#\[}
    bare=${bare%\]}
    # Standard input stays open: some servers take its end for a client that went away.
    rm -f "$work/ask"
    mkfifo -m 0600 "$work/ask"
    exec 9<>"$work/ask"
    printf 'GET /%s HTTP/1.0\r\nHost: %s\r\nX-Agent-Token: %s\r\nConnection: close\r\n\r\n' \
        "${rest#*/}" "$authority" "$token" >&9
    # shellcheck disable=SC2086
    in_reach from_9 $box nc -w 60 "$bare" "$port" >"$work/answer" || true
    exec 9>&-
    head=0 status='' length=
    while IFS= read -r line; do
        head=$((head + ${#line} + 1))
        [ -n "$status" ] || { status=${line#* } && status=${status%% *}; }
        case "$line" in
        [Cc]ontent-[Ll]ength:* | [Xx]-[Aa]gent-[Ss]ize:*) length=${line##*[: ]} && length=${length%"$cr"} ;;
        "$cr" | '') break ;;
        esac
    done <"$work/answer"
    tail -c +$((head + 1)) "$work/answer" >"$2"
    rm -f "$work/answer"
    echo "$status"
    # For nc, an answer that is cut off is over like every other.
    count=$(wc -c <"$2" | tr -d ' ')
    [ "${length:-$count}" = "$count" ] || { echo "the answer was cut off: $count of $length bytes came" >&2; return 1; }
}

# ask URL FILE: prints the status, and fails unless all of an answer came
ask() {
    case "$downloader" in
    curl)
        # -q, which has to be first: no file of the user changes anything, or follows a redirection with the token.
        (umask 077 && { [ -z "$token" ] || printf 'header = "X-Agent-Token: %s"\n' "$token"; } >"$work/curlrc")
        in_reach curl -q --silent --show-error --config "$work/curlrc" --connect-timeout 10 --max-time 300 --output "$2" \
            --write-out '%{http_code}\n' "$1" || true
        rm -f "$work/curlrc"
        return "$ended"
        ;;
    wget)
        # A file of its own, so that no file of the user changes anything.
        (umask 077 && { [ -z "$token" ] || printf 'header = X-Agent-Token: %s\n' "$token"; } >"$work/wgetrc")
        in_reach wget --config="$work/wgetrc" --tries=1 --timeout=60 --max-redirect=0 --server-response --content-on-error \
            --output-document="$2" "$1" >/dev/null 2>"$work/log" || true
        rm -f "$work/wgetrc"
        status_in "$work/log"
        # 6 and 8: the server answered, with another status than 200.
        case "$ended" in 0 | 6 | 8) ;; *) tail -n 2 "$work/log" >&2 ;; esac
        return "$ended"
        ;;
    python3) in_reach asked_for "$1" "$2" python3 -c "$python_code" ;;
    node) in_reach asked_for "$1" "$2" node -e "$node_code" ;;
    busybox) by_busybox "$1" "$2" ;;
    esac
}

# get URL FILE: sets status, to 0 when there was no answer or only a part of it
get() {
    asked=${1%%\?*} failed=
    ask "$1" "$2" >"$work/status" || failed=yes
    status=$(cat "$work/status")
    # What is no file is good as far as it came.
    case "$failed/$status" in /[1-9]?? | yes/[345]??) ;; *) status=0 ;; esac
}

sha256_of() {
    if has sha256sum; then sha256sum "$1" | cut -d' ' -f1
    elif has busybox; then busybox sha256sum "$1" | cut -d' ' -f1
    elif has openssl; then openssl dgst -sha256 -r "$1" | cut -d' ' -f1
    elif has python3; then
        FETCH_TO=$1 python3 -c 'import hashlib, os; print(hashlib.sha256(open(os.environ["FETCH_TO"], "rb").read()).hexdigest())'
    elif has node; then
        FETCH_TO=$1 node -e 'console.log(require("crypto").createHash("sha256").update(require("fs").readFileSync(process.env.FETCH_TO)).digest("hex"))'
    else die 69 'there is nothing here that computes SHA-256'
    fi
}

# told FIELD: what the server's list has there for this architecture; nothing if there is no such field
told() {
    tr -d ' \n\r\t' <"$work/info" | tr '{' '\n' | tr '}' '\n' | grep "\"arch\":\"$arch\"" | tr ',' '\n' |
        sed -n "s/^\"$1\"://p" | head -n 1
}

# What is wrong with the file that was downloaded; nothing if nothing is.
problem_of() {
    file=$1
    size=$(wc -c <"$file" | tr -d ' ')
    [ "$size" -gt 0 ] || { echo 'the answer is empty'; return; }
    if [ "$(head -c 4 "$file" | tr -d '\0')" != "$(printf '\177ELF')" ]; then
        case "$(head -c 512 "$file" | tr -d '\0 \n\r\t' | head -c 1)" in
        '<') echo "you got an HTML page: check the URL $url, and what stands between here and the server" ;;
        '{') echo "you got a JSON document and not a program: check the URL $url" ;;
        *) echo "what came is not a program for Linux: check the URL $url" ;;
        esac
        return
    fi
    checked='ELF header was'
    if [ -n "$listed" ]; then
        [ -n "$(told arch)" ] || { echo "$info does not tell of $arch"; return; }
        wanted=$(told size_bytes)
        case "$wanted" in
        '' | 0) ;;
        *[!0-9]*) echo "$info has a size that is no number"; return ;;
        "$size") checked='size and the ELF header were' ;;
        *) echo "$size bytes came and the server has $wanted: the download was cut off"; return ;;
        esac
    fi
    # Some shells take a program of another machine for a script.
    case "$arch/$(head -c 20 "$file" | tail -c 2 | tr -d '\0')" in
    "x86_64/>" | "aarch64/$(printf '\267')") ;;
    *) echo "what came is a program for another machine than $arch: check the URL $url"; return ;;
    esac
    wanted=$(told sha256 | tr A-F a-f)
    if [ -z "$wanted" ]; then
        say "the server tells no checksum: only the $checked checked"
        return
    fi
    wanted=${wanted#\"} wanted=${wanted%\"}
    case "${#wanted}/$wanted" in
    64/*[!0-9a-f]*) ;;
    64/*)
        found=$(sha256_of "$file") || exit "$?"
        [ "$wanted" = "$found" ] || echo "the checksum is $found and should be $wanted"
        return
        ;;
    esac
    echo "$info has a checksum that is no SHA-256"
}

# no_file FILE [OF]: what a status other than 200 means, and what the server says in FILE, if anything
no_file() {
    text=${2:-}$(head -c 300 "$1" | tr -dc ' -~' | sed 's/^/: /')
    code=69
    case "$status" in
    400 | 401 | 403)
        [ -n "$token" ] || text="$text (ATTUNE_AGENT_TOKEN is not set)"
        die 78 "the server refuses with status $status$text"
        ;;
    0) problem="no complete answer from $asked" ;;
    *) problem="the server answers with status $status$text" ;;
    esac
}

case "$url" in *\?*) query="$url&" ;; *) query="$url?" ;; esac
info=$(printf '%s' "${url%%\?*}" | sed 's|/binary$|/info|')
attempt=0 pause=1
while :; do
    attempt=$((attempt + 1))
    problem='' listed=
    : >"$work/info"
    : >"$work/new"
    if [ "$info" != "${url%%\?*}" ]; then
        get "$info" "$work/info"
        # Only a server that has no list may do without: a failure would switch the checks off.
        case "$status" in 200) listed=yes ;; 404) : >"$work/info" ;; *) no_file "$work/info" " for $info" ;; esac
    fi
    if [ -z "$problem" ]; then
        get "${query}arch=$arch&name=$applet" "$work/new"
        if [ "$status" = 200 ]; then
            problem=$(problem_of "$work/new") || exit "$?"
            code=65
            [ -n "$problem" ] || break
        else
            no_file "$work/new"
        fi
    fi
    [ "$attempt" -lt "$attempts" ] || die "$code" "$problem (after $attempt attempts)"
    say "$problem; trying again in $pause s ($attempt of $attempts)"
    in_reach sleep "$pause"
    pause=$((pause * 2))
    [ "$pause" -le 30 ] || pause=30
done

chmod 0555 "$work/new" || die 73 "$folder does not take it"
# Also catches a wrong architecture, a noexec mount, and servers that know one agent only.
code=0
version=$("$work/new" "--version" 2>/dev/null) || code=$?
# Signals end at 64; 255 is what an emulator of another machine gives that cannot start it.
[ "$code" -le 128 ] || [ "$code" -gt 192 ] || die 65 "what came is ended by signal $((code - 128)) as soon as it is started"
[ "$code" = 0 ] || die 73 "the agent cannot be started from $folder: it is mounted noexec, or this machine is not $arch"
case "$version" in
"$applet "*) mv -f "$work/new" "$folder/$applet" || die 73 "$folder does not take it" ;;
"attune-agents "*)
    # One file, chosen by its name: both names lead to it.
    mv -f "$work/new" "$folder/attune-agents" || die 73 "$folder does not take it"
    for name in attune-agent attune-sensor-agent; do
        ln -sf attune-agents "$work/$name" && mv -f "$work/$name" "$folder/$name"
    done
    ;;
*) die 65 "the server gave \"$version\" and not $applet" ;;
esac
rm -rf "$work"
trap - EXIT INT TERM
say "$("$folder/$applet" --version) is in $folder"
become "$@"
