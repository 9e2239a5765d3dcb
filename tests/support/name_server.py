"""A name server that changes its mind: what it says of a name is another address each time it is asked (rebinding)."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address

_A, _AAAA = 1, 28


class NameServer:
    """Answers over UDP (RFC 1035, §4); `answers` are the addresses of a name, in turn, the last one from then on."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[str, ...]]] = {}
        self.asked: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    async def resolve(self, host: str, _port: int) -> list[str]:
        """Ask the server for all addresses of a host; written ones are themselves, as for the system's resolver."""
        try:
            return [str(ip_address(host))]
        except ValueError:
            return await asyncio.to_thread(self._ask, host)

    def close(self) -> None:
        """End the server."""
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(60)
        self._socket.close()

    def _ask(self, host: str) -> list[str]:
        labels = b"".join(bytes([len(label)]) + label for label in host.encode().split(b"."))
        query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 255, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.sendto(query, self._socket.getsockname())
            answer = client.recv(4096)
        position, found = len(query), list[str]()
        for _ in range(struct.unpack("!H", answer[6:8])[0]):
            length = struct.unpack("!H", answer[position + 10 : position + 12])[0]
            found.append(str(ip_address(answer[position + 12 : position + 12 + length])))
            position += 12 + length
        return found

    def _serve(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(4096)
            if not query:
                return
            name = _name_in(query)
            told = self.answers[name]
            addresses = told[min(self.asked[name], len(told) - 1)]
            self.asked[name] += 1
            head = query[:2] + struct.pack("!5H", 0x8180, 1, len(addresses), 0, 0)
            self._socket.sendto(head + query[12:] + b"".join(map(_record, addresses)), peer)


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Serve names."""
    server = NameServer()
    try:
        yield server
    finally:
        server.close()


def _name_in(query: bytes) -> str:
    labels, position = list[str](), 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels)


def _record(address: str) -> bytes:
    """Write an address of the name that was asked for; good for no time at all."""
    ip = ip_address(address)
    return struct.pack("!3HIH", 0xC00C, _A if isinstance(ip, IPv4Address) else _AAAA, 1, 0, len(ip.packed)) + ip.packed
