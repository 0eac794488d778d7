"""What is raised for a line of a script's at the server that is none of its protocol."""

from sshvpn.errors import SshvpnError


class MalformedLineError(SshvpnError):
    """The agent said something that is no line of this protocol."""

    code = "agent_protocol"
