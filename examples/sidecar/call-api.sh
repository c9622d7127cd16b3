#!/bin/sh
# Call an API with a token of the sidecar: API_URL=https://api.example/things ./call-api.sh chat
# The token goes to curl and to the report by standard input, so it is in no process list.
set -eu
name=$1

call() {
    printf 'header = "Authorization: Bearer %s"\n' "$token" |
        curl --config - --silent --show-error --max-time 10 --output /dev/null --write-out '%{http_code}' "$API_URL"
}

# Waits up to 30 s for a token that is valid for one more minute.
token=$(token-keeper get "$name" --min-validity 60s --wait 30s)
status=$(call)
if [ "$status" = 401 ]; then
    # Says which token was refused, and waits for another one.
    printf %s "$token" | token-keeper denied "$name" --code 401 --token - --wait 10s >&2
    token=$(token-keeper get "$name")
    status=$(call)
fi
echo "the API answered $status"
