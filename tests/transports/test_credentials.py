from __future__ import annotations

import os
import struct
import sys

import pytest

from tests.platforms import unix_only
from trio_ipc import PeerCredentials, PeerPolicy


@unix_only
def test_by_default_the_own_user_and_root_are_allowed() -> None:
    assert sys.platform != "win32"
    policy = PeerPolicy.own_user_and_root()
    assert policy.allows(PeerCredentials(uid=os.geteuid()))
    assert policy.allows(PeerCredentials(uid=0))
    assert not policy.allows(PeerCredentials(uid=os.geteuid() + 1))


@unix_only
def test_listed_users_are_allowed_and_no_others() -> None:
    policy = PeerPolicy.users([7, 8])
    assert policy.allows(PeerCredentials(uid=8))
    assert not policy.allows(PeerCredentials(uid=0))
    assert str(policy) == "user 7 or 8"


@pytest.mark.parametrize("unknown", [None, PeerCredentials(), PeerCredentials(pid=1)])
def test_a_peer_whose_user_is_not_known_is_refused_unless_anyone_may_come(
    unknown: PeerCredentials | None,
) -> None:
    assert not PeerPolicy.own_user_and_root().allows(unknown)
    assert PeerPolicy.anyone().allows(unknown)


def test_credentials_and_policies_read_as_people_say_them() -> None:
    assert str(PeerCredentials(pid=17, uid=0, gid=5)) == "process 17, uid 0, gid 5"
    assert str(PeerCredentials()) == "unknown"
    assert str(PeerPolicy.anyone()) == "anyone"


@unix_only
def test_the_xucred_of_macos_is_read_by_its_layout() -> None:
    from trio_ipc.transports.credentials import parse_xucred

    raw = struct.pack("=IIhxx16I", 0, 501, 3, 20, 12, 61, *[0] * 13)
    assert parse_xucred(raw) == PeerCredentials(uid=501, gid=20)
    other_version = struct.pack("=IIhxx16I", 1, 501, 3, 20, 12, 61, *[0] * 13)
    assert parse_xucred(other_version) == PeerCredentials()
