"""Attacks that would tell somebody something: sockets of every family."""

from __future__ import annotations

from attack import Attack

_SECCOMP = (frozenset({"seccomp"}),)

NETWORK = (
    Attack(
        "tcp",
        "connects to a server on this machine and to one outside",
        """
            for address in (('127.0.0.1', PORT), ('8.8.8.8', 53), ('localhost', PORT)):
                tried(address, lambda: socket.create_connection(address, timeout=1))
            tried('listen', lambda: socket.create_server(('127.0.0.1', 0)))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "udp",
        "sends a datagram",
        """
            here = '127.0.0.1', UDP_PORT
            tried('send', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', here))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "raw_sockets",
        "makes sockets that see or forge packets",
        """
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET):
                tried(family, lambda: socket.socket(family, socket.SOCK_RAW, 255))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "every_family",
        "makes a socket of every family there is",
        """
            for family in range(64):
                for kind in (1, 2, 3, 5):
                    tried(family, lambda: socket.socket(family, kind, 0))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "unix_path",
        "speaks to a service by the path of its socket",
        """
            for kind, path in ((socket.SOCK_STREAM, STREAM_SOCKET), (socket.SOCK_DGRAM, DATAGRAM_SOCKET)):
                tried(path, lambda: socket.socket(socket.AF_UNIX, kind).connect(path))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "unix_abstract",
        "speaks to a service by a name that is no path",
        r"""
            tried('abstract', lambda: socket.socket(socket.AF_UNIX).connect(b'\0' + ABSTRACT.encode()))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "datagram_pair",
        "addresses others from a socket pair, which needs no connection",
        r"""
            def send(kind, address):
                a, b = socket.socketpair(socket.AF_UNIX, kind)
                return a.sendto(b'x', address)
            for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
                tried(kind, lambda: send(kind, DATAGRAM_SOCKET))
                tried(kind, lambda: send(kind, b'\0' + ABSTRACT_DATAGRAM.encode()))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "stream_pair",
        "addresses others from the pairs that are allowed",
        """
            def send(kind):
                a, b = socket.socketpair(socket.AF_UNIX, kind)
                sent = a.sendto(b'x', DATAGRAM_SOCKET), a.sendmsg([b'y'], [], 0, DATAGRAM_SOCKET)
                b.setblocking(False)
                assert b.recv(9) not in (b'x', b'xy'), 'it went to its own other end'
                return sent
            for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
                tried(kind, lambda: send(kind))
            a, b = socket.socketpair()
            tried('connect', lambda: a.connect(STREAM_SOCKET))
            tried('bind', lambda: a.bind(MARK))
            tried('listen', lambda: a.listen())
            tried('tipc', lambda: socket.socketpair(30, 5))
            """,
        needs=_SECCOMP,
    ),
    Attack(
        "netlink",
        "asks the kernel about interfaces and routes, and changes them",
        """
            tried('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
            tried('names', lambda: socket.if_nameindex() or 1 / 0)
            tried('resolve', lambda: socket.getaddrinfo('example.org', 80))
            """,
        needs=_SECCOMP,
    ),
)
