#!/bin/sh
# Runs Mosquitto, and lets it read its users and rules again whenever `shouwang mosquitto-auth` has written new ones.
# Both share a folder and nothing else: no common process list, no common user.
set -u
auth=${AUTH_DIR:-/mosquitto/auth}
configuration=${1:-/mosquitto/config/mosquitto.conf}

version() { cat "$auth/version" 2>/dev/null; }

# A broker that is still starting does not handle SIGHUP yet, and would be ended by it.
handles_hup() {
    case $(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$broker/status" 2>/dev/null) in
        *[13579bdf]) return 0 ;;
        *) return 1 ;;
    esac
}

until [ -s "$auth/version" ]; do
    echo "waiting for shouwang mosquitto-auth to write $auth"
    sleep 1
done

read=$(version)   # before the broker reads: what is written from now on is a change
mosquitto -c "$configuration" &
broker=$!
trap 'kill -TERM "$broker" 2>/dev/null' TERM INT
while kill -0 "$broker" 2>/dev/null; do
    now=$(version)
    if [ -n "$now" ] && [ "$now" != "$read" ] && handles_hup; then
        kill -HUP "$broker" && read=$now
    fi
    sleep 1 &
    wait $!
done
wait "$broker"
