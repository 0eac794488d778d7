"""Pure parser of ``-o OPTION=VALUE``: which of ssh's options are the user's to set.

What sshvpn owns it sets itself, first on ssh's command line; a user's value would be ignored
without a word (the first value wins), so it is refused with the way that sshvpn has for it.
Not owned, on purpose: where the known keys are (UserKnownHostsFile, GlobalKnownHostsFile,
HostKeyAlias, KnownHostsCommand), since a strict check against the user's own list stays
strict; and the commands that run as the user with the user's rights (ProxyCommand,
LocalCommand). All else of ssh_config(5) is the user's.
"""

from __future__ import annotations

import re

from sshvpn.errors import UsageError
from sshvpn.spec.words import quoted, shown

VALUE_MAX = 4096

_KEY_AND_VALUE = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)(.*\S)\s*\Z", re.DOTALL)

_HOST_KEYS = ("host keys are always checked", "add the key with ssh-keyscan, or log in once by ssh")
_FORWARDS = ("forwards are SPECs here", "write a SPEC, -R SPEC or -D PORT")
_BINDING = ("where a forward listens is said by the SPEC", "write BIND:PORT:…, --bind or --lan")
_TUNNEL = ("the tunnel is sshvpn's to open", "use sshvpn up")
_CONTROL = ("a connection is never shared with another ssh", "leave it out")
_PROMPTS = ("who is asked, and when, is sshvpn's to decide", "leave it out")
_MESSAGES = ("ssh's messages are what sshvpn watches", "use -v, or --debug")
_SESSION = ("no command runs on the server's side", "use ssh for that")
_BLOCKS = ("it is no option but a block of ssh_config", "put it into a file and name that by -F")

OWNED = {
    "stricthostkeychecking": _HOST_KEYS,
    "nohostauthenticationforlocalhost": _HOST_KEYS,
    "verifyhostkeydns": _HOST_KEYS,
    "localforward": _FORWARDS,
    "remoteforward": _FORWARDS,
    "dynamicforward": _FORWARDS,
    "clearallforwardings": _FORWARDS,
    "exitonforwardfailure": _FORWARDS,
    "gatewayports": _BINDING,
    "streamlocalbindunlink": _BINDING,
    "tunnel": _TUNNEL,
    "tunneldevice": _TUNNEL,
    "controlmaster": _CONTROL,
    "controlpath": _CONTROL,
    "controlpersist": _CONTROL,
    "batchmode": _PROMPTS,
    "loglevel": _MESSAGES,
    "logverbose": _MESSAGES,
    "syslogfacility": _MESSAGES,
    "forkafterauthentication": _SESSION,
    "sessiontype": _SESSION,
    "remotecommand": _SESSION,
    "requesttty": _SESSION,
    "stdinnull": _SESSION,
    "host": _BLOCKS,
    "match": _BLOCKS,
    "include": _BLOCKS,
}
"""Options of ssh_config(5), in lower case, that sshvpn owns: why, and what to do instead."""


def parse_ssh_option(text: str) -> tuple[str, str]:
    """Return key and value of ``Key=Value`` or ``Key Value``. Raises UsageError.

    The key keeps the case it was typed in; ssh and the table of owned keys do not mind it.
    """
    if not text.isprintable():
        raise UsageError(f"-o {quoted(text)} holds a control character", "write it without")
    match = _KEY_AND_VALUE.match(text)
    if match is None:
        raise UsageError(f"-o {quoted(text)} is not OPTION=VALUE", "like -o ConnectTimeout=5")
    key, value = match.groups()
    if len(value) > VALUE_MAX:
        raise UsageError(f"-o {shown(key)}: the value is longer than {VALUE_MAX} letters")
    if key.lower() in OWNED:
        reason, instead = OWNED[key.lower()]
        raise UsageError(f"-o {key} cannot be set: {reason}", instead)
    return key, value
