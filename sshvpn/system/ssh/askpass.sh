#!/bin/sh
# ssh runs this as SSH_ASKPASS with the prompt as its one word; the answer goes to stdout.
# Isolated (-I) and without site packages (-S): nothing of the user's is imported here.
exec "$SSHVPN_PYTHON" -IS "$SSHVPN_ASKPASS_CLIENT" "$1"
