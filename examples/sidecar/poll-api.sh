#!/bin/sh
# Call an API every few seconds, for days. The sidecar keeps the file fresh whose path is in TOKEN_FILE.
#     token-keeper run chat --file TOKEN_FILE -- ./poll-api.sh chat
set -eu
name=$1

trap 'echo stopped; exit 0' TERM INT
while :; do
    # Read for each call: the file is replaced at each renewal, as a whole.
    token=$(cat "$TOKEN_FILE")
    status=$(
        printf 'header = "Authorization: Bearer %s"\n' "$token" |
            curl --config - --silent --max-time 10 --output /dev/null --write-out '%{http_code}' "$API_URL"
    ) || true
    echo "the API answered $status"
    if [ "$status" = 401 ]; then
        # Says which token was refused, and waits for another one. The next round has it.
        printf %s "$token" | token-keeper denied "$name" --code 401 --token - --wait 10s >&2 || true
    fi
    # In the background, because a shell hears a signal only while it waits.
    sleep "${PAUSE_S:-10}" >/dev/null 2>&1 &
    wait $!
done
