"""The script on its way: what counts as a sign that it goes on."""

from __future__ import annotations

from sshvpn.system.tunnel.upload import Upload

SIZE = 41_000
BEGUN = 3_000


def test_what_is_acknowledged_moves_it_on_and_a_sign_of_life_of_ssh_does_not() -> None:
    upload = Upload(SIZE, BEGUN, 10.0)
    upload.look(BEGUN + 2_000, 11.0)
    assert upload.moved_at == 11.0
    for second in range(12, 18):
        upload.look(BEGUN + 2_000 + 80 * (second - 11), float(second))
    assert upload.moved_at == 11.0
    upload.look(BEGUN + 10_000, 18.0)
    assert upload.moved_at == 18.0


def test_what_comes_after_it_is_no_sign_of_it() -> None:
    upload = Upload(SIZE, BEGUN, 10.0)
    upload.look(BEGUN + SIZE, 11.0)
    upload.look(BEGUN + 3 * SIZE, 20.0)
    assert upload.moved_at == 11.0


def test_where_the_kernel_tells_nothing_it_has_begun_and_no_more() -> None:
    for sent in (None, BEGUN):
        upload = Upload(SIZE, sent, 10.0)
        upload.look(None, 11.0)
        assert upload.moved_at == 10.0
    upload = Upload(SIZE, None, 10.0)
    upload.look(BEGUN, 11.0)
    assert upload.moved_at == 10.0
