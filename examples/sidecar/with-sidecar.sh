#!/bin/sh
# Run a command beside a sidecar: one that runs already, or one of its own that ends with the command.
#     KEEPER_CONFIG=keeper.toml API_URL=https://api.example/things ./with-sidecar.sh ./call-api.sh chat
set -eu

sidecar='' command=''
finish() {
    code=$?
    trap - EXIT
    for pid in $command $sidecar; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

if ! token-keeper status --live --quiet; then
    token-keeper serve --config "${KEEPER_CONFIG:-keeper.toml}" &
    sidecar=$!
    until token-keeper status --live --quiet; do
        # If it ended, its exit code is ours, and it has said why.
        kill -0 "$sidecar" 2>/dev/null || wait "$sidecar"
        sleep 0.3
    done
fi

# In the background, because a shell hears a signal only while it waits.
"$@" &
command=$!
code=0
wait "$command" || code=$?
command=''
exit "$code"
