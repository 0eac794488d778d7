"""Pure parsers of the words of the command line: HOST, SPEC, ``-D``, ``-J``, ``-o``.

They decide by shape, never by trying; every mistake is a UsageError of one line with the
nearest right form as its hint. Nothing parsed begins with ``-`` or holds a character that ssh
or a shell would read as more than text.
"""

from sshvpn.spec.bind import parse_bind, parse_interface
from sshvpn.spec.destination import check_jump, check_user, is_host, parse_destination
from sshvpn.spec.forward import (
    is_plain_socket,
    parse_address_port,
    parse_dynamic,
    parse_forward,
    parse_publish,
)
from sshvpn.spec.library import not_carried
from sshvpn.spec.notebook import make_wish, parse_directory, parse_jupyter
from sshvpn.spec.ssh_option import parse_ssh_option
from sshvpn.spec.twins import forward_twins, published_twins, refuse_twins, twins_error
from sshvpn.spec.words import parse_port, quoted, shown

__all__ = [
    "check_jump",
    "check_user",
    "forward_twins",
    "is_host",
    "is_plain_socket",
    "make_wish",
    "not_carried",
    "parse_address_port",
    "parse_bind",
    "parse_destination",
    "parse_directory",
    "parse_dynamic",
    "parse_forward",
    "parse_interface",
    "parse_jupyter",
    "parse_port",
    "parse_publish",
    "parse_ssh_option",
    "published_twins",
    "quoted",
    "refuse_twins",
    "shown",
    "twins_error",
]
